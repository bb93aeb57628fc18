"""From a plain mapping to a config, or to every mistake in it at once, in the user's words."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from workloads.config.base import STRICT, Config
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.field_types import Place, choices, config_class, item_of, locate

T = TypeVar("T", bound=BaseModel)

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}


def validate(cls: type[T], document: Mapping[str, Any], source: str) -> T:
    """Build a config of class `cls`; convert nothing silently.

    Where one of several choices stands (``model.head.pooling``), its bare name is short for
    ``{name: ...}``, and a mapping without ``name`` belongs to the default choice.

    Raises:
        ConfigError: With one problem per mistake: the path as the user wrote it, what stands
            there, what is allowed and the closest name.
    """
    given = dict(document)
    if issubclass(cls, Config):
        given = cls.with_usual_values(given)
    expanded = {key: value for key, value in given.items() if key not in cls.model_fields}
    for name, field in cls.model_fields.items():
        if name in given:
            expanded[name] = _expand(field, given[name])
    try:
        return cls.model_validate(expanded, strict=True, context=STRICT)
    except ValidationError as error:
        details = [d for d in error.errors(include_url=False) if not _follows_from_another(d)]
        problems = [_problem(cls, detail) for detail in details]
        raise ConfigError(source, problems) from None


def flatten(config: BaseModel | Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    """Return the leaf values under dotted keys (``model.head.pooling.name``); lists as text.

    Args:
        config: A config, or one as JSON has it.
    """
    document = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    return dict(_leaves("", document))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str | int | float | bool | None]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        yield prefix, json.dumps(value)
    else:
        yield prefix, value


def _expand(field: FieldInfo, value: Any) -> Any:
    """Fill in what the short forms leave out; turn lists into the tuples that fields hold."""
    allowed = choices(field)
    if not allowed:
        return _as_type(field.annotation, value)
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, dict) and "name" not in value:
        default = getattr(field.default, "name", None)
        value = {"name": default, **value} if default is not None else value
    model = allowed.get(_text(value.get("name"))) if isinstance(value, dict) else None
    return value if model is None else _as_type(model, value)


def _as_type(annotation: Any, value: Any) -> Any:
    model = config_class(annotation)
    if model is not None and isinstance(value, dict):
        fields = model.model_fields
        return {k: _expand(fields[k], v) if k in fields else v for k, v in value.items()}
    item = item_of(annotation)
    if item is not None and isinstance(value, list):
        return tuple(_as_type(item[0], inner) for inner in value)
    return value


# --- what went wrong -----------------------------------------------------------------------------


def _problem(cls: type[BaseModel], detail: Any) -> Problem:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    place = locate(cls, detail["loc"])
    path = place.path
    if kind == "extra_forbidden":
        return _unknown_key(cls, detail["loc"][:-1], place)
    if kind == "missing":
        hint = "" if "[" in path else f"write {path}=..."
        return Problem(path, "is required and not given", hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        names = list(place.choices or ())
        listed = f"allowed: {', '.join(names)}"
        if kind == "union_tag_not_found":
            return Problem(f"{path}.name", "is required and not given", listed)
        got = _text(context.get("tag"))
        return Problem(f"{path}.name", f"got {_show(got)}", _join(did_you_mean(got, names), listed))
    if kind == "literal_error":
        allowed = list(map(str, place.literals()))
        listed = f"allowed: {', '.join(allowed)}"
        return Problem(
            path, f"got {_show(value)}", _join(did_you_mean(_text(value), allowed), listed)
        )
    if kind == "value_error":
        return Problem(path, str(context.get("error", detail["msg"])))
    if kind == "finite_number":
        return Problem(path, f"got {value}", "a finite number is needed")
    if kind.startswith(("greater_than", "less_than")):
        return Problem(path, f"got {_show(value)}", f"allowed: {place.bounds()}")
    if kind in ("too_short", "string_too_short") and not value:
        return Problem(path, "must not be empty")
    if kind in ("too_short", "too_long"):
        side = "at least" if kind == "too_short" else "at most"
        length = context.get("min_length", context.get("max_length"))
        return Problem(path, f"got {_show(value)}", f"expected {side} {length} items")
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected is None:
        return Problem(path, f"got {_show(value)}", detail["msg"])
    quote = "; put it in quotes" if expected == "text" and isinstance(value, int | float) else ""
    null = " or null" if place.takes_null else ""
    return Problem(path, f"got {_show(value)}", f"expected {expected}{null}{quote}")


def _follows_from_another(detail: Any) -> bool:
    """Whether a list is called too short only because an item of it was refused."""
    if detail["type"] != "too_short":
        return False
    return len(detail["input"]) >= int(detail["ctx"]["min_length"])


def _unknown_key(cls: type[BaseModel], parent: tuple[Any, ...], place: Place) -> Problem:
    """Name the closest key, where the key went, the choice that has it, or all of the level."""
    path, owner = place.path, place.owner
    key = path.rpartition(".")[2]
    known = sorted(owner.model_fields, key="name".__ne__) if owner is not None else []
    listed = f"allowed here: {', '.join(known)}"
    if owner is not None and issubclass(owner, Config) and key in owner.moved_keys:
        return Problem(path, "is no longer here", f"now: {owner.moved_keys[key]}")
    if close := did_you_mean(key, known):
        return Problem(path, "unknown key", close)
    # Below a choice, pydantic's location ends with the tag; the field is one step further up.
    others = (locate(cls, parent[:-1]).choices if parent else None) or {}
    for name, other in others.items():
        if key in other.model_fields and other is not owner:
            return Problem(path, "unknown key", f"it belongs to name: {name}; {listed}")
    return Problem(path, "unknown key", listed)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _show(value)


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
