"""A recipe with all its values as YAML, each with a remark on who said it."""

import re
from typing import Any

from orchestrator.jobs.origins import origins
from orchestrator.jobs.plan import TO_BE_GIVEN, Plan
from workloads.config.document import dump_document
from workloads.config.validate import flatten

_KEY = re.compile(r"(?P<indent> *)(?P<key>[A-Za-z_0-9]+):(?P<rest>.*)")
_REMARKS_AT = 44
"""Column of the remarks, where the value leaves room."""


def resolved_page(plan: Plan) -> str:
    """Return the whole config with remarks; what has none is a default."""
    spec = plan.spec
    lines = [f"# {plan.recipe.path}"]
    lines += [f"# builds on {layer.name}: {layer.path}" for layer in plan.recipe.layers[1:]]
    if spec.published is not None:
        lines.append(f"# published: {spec.published.describe()}")
    lines.append("# What has no remark is a default.")
    return "\n".join([*lines, *_with_remarks(dump_document(_as_recipe(plan)), origins(plan))])


def to_be_given(plan: Plan) -> list[str]:
    """Return the keys that a recipe asks the person to give who submits it."""
    return [key for key, value in flatten(plan.config).items() if value == TO_BE_GIVEN]


def _with_remarks(text: str, said: dict[str, str]) -> list[str]:
    lines: list[str] = []
    above: list[str] = []
    for line in text.rstrip().split("\n"):
        match = _KEY.fullmatch(line)
        if match is None:  # an item of a list
            lines.append(line)
            continue
        depth = len(match["indent"]) // 2
        above[depth:] = [match["key"]]
        who = said.get(".".join(above))
        lines.append(f"{line:<{_REMARKS_AT}}  # {who}" if who else line)
    return lines


def _as_recipe(plan: Plan) -> dict[str, Any]:
    spec = plan.spec
    job = spec.resources.model_dump() | {
        "priority": spec.priority,
        "max_retries": spec.max_retries,
        "time_limit_s": spec.time_limit_s,
    }
    heading = {"description": spec.description, "study": spec.study, "job": job}
    return heading | _name_first(spec.config)


def _name_first(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return mappings with `name` in front, as people write them."""
    ordered = {key: mapping[key] for key in sorted(mapping, key="name".__ne__)}
    return {k: _name_first(v) if isinstance(v, dict) else v for k, v in ordered.items()}
