"""Who said each value of a resolved recipe: which file, the command line, or nobody."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.jobs.plan import TO_BE_GIVEN, Plan, apply_overrides_to_recipe
from orchestrator.jobs.recipes import merge, with_model_of_network
from workloads.config.base import Config
from workloads.config.data import SOURCE_CONFIGS
from workloads.config.document import apply_overrides
from workloads.config.images import AugmentConfig, ImagesConfig

OVERRIDE = "command line"


def origins(plan: Plan) -> dict[str, str]:
    """Return dotted key -> who said its value; what nobody said, a default, is left out.

    The layers are merged again, one at a time, and what each of them changes is noted.
    """
    merged: dict[str, Any] = {}
    said: dict[str, str] = {}
    for layer in reversed(plan.recipe.layers):
        own = layer.document
        whole = with_model_of_network(own, str(layer.path))
        merged = merge(merged, whole)
        if whole is not own:
            said = _note(said, merged, whole, f"network {own['network']}")
        said = _note(said, merged, own, layer.name)
    network = [text for text in plan.overrides if text.partition("=")[0].strip() == "network"]
    if network:
        whole = with_model_of_network(apply_overrides({}, network), OVERRIDE)
        merged = {**merged, **whole}
        said = _note(said, merged, whole, f"network {whole['network']}")
    after = apply_overrides_to_recipe(merged, plan.overrides)
    own_size = "size" in dict(merged.get("images") or {})
    said = _note(said, after, _changed(merged, after), OVERRIDE)
    if not own_size and not any(text.startswith("images.size") for text in plan.overrides):
        said["images.size"] = f"network {after.get('network')}"
    resolved = dict(_leaves("", plan.spec.config))
    keys = [*resolved, *(key for key in said if key.startswith("job.")), "study"]
    found = {key: who for key in keys if (who := _get(said, key)) is not None}
    found |= {key: "to be given" for key, value in resolved.items() if value == TO_BE_GIVEN}
    return found | _usual(plan, resolved, found)


def _note(
    said: Mapping[str, str], merged: Mapping[str, Any], change: Mapping[str, Any], who: str
) -> dict[str, str]:
    """Return who said the values of `merged`, of which `who` said those in `change`."""
    changed = {key: who for key, _ in _leaves("", change)}
    found = {key: _get(changed, key) or _get(said, key) for key, _ in _leaves("", merged)}
    return {key: who for key, who in found.items() if who is not None}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `after` that is not in `before`."""
    found: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, Mapping):
            if inner := _changed(old, value):
                found[key] = inner
        elif value != old:
            found[key] = value
    return found


def _usual(plan: Plan, resolved: Mapping[str, Any], said: Mapping[str, str]) -> dict[str, str]:
    """Mark what is usual for the source's images, and is not the default anyway."""
    source = SOURCE_CONFIGS[plan.config.data.name]
    images, augment = source.usual_images, source.usual_augment
    plain = AugmentConfig(crop=type(augment.crop).model_validate({"name": augment.crop.name}))
    usual = dict(_leaves("", {"images": _dump(images), "augment": _dump(augment)}))
    default = dict(_leaves("", {"images": _dump(ImagesConfig()), "augment": _dump(plain)}))
    del default["augment.crop.name"]
    return {
        key: f"usual for {plan.config.data.name}"
        for key, value in usual.items()
        if key not in said and resolved.get(key) == value and default.get(key, ...) != value
    }


def _dump(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, Mapping):
            yield from _leaves(path, inner)
        else:
            yield path, inner


def _get(said: Mapping[str, str], key: str) -> str | None:
    """Return who said a key; a bare name is short for `{name: ...}`."""
    return said.get(key) or said.get(key.removesuffix(".name"))
