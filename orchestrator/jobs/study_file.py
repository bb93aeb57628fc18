"""A study as one writes it: a YAML file with overrides, read into an `AblationConfig`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.jobs.job import STUDY
from orchestrator.jobs.recipes import load_recipe
from orchestrator.jobs.study import problems_of
from workloads.config.ablation import AblationConfig
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.validate import validate

_OF_VALIDATION = ("top1", "loss")
"""What a training finds by itself, where nothing is evaluated."""
_OF_EVALUATION = (*_OF_VALIDATION, "top5", "ece", "mce", "brier", "mean_class_recall")
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_CONSTANTS = ("true", "false", "null")


def load_study(name: str, overrides: Sequence[str]) -> tuple[str, str, AblationConfig]:
    """Read a study and lay overrides over it.

    Args:
        name: Name of a study, or path of a YAML file.
        overrides: `key=value`. A key of the study itself (`recipe`, `mode`, `seeds`, ...) changes
            the study; any other one is laid over the recipe in all cells.

    Returns:
        The study's name, its source for messages, and the config.

    Raises:
        NotFoundError: No such study.
        ConfigError: It cannot be used as it stands.
    """
    recipe = load_recipe(name, STUDY)
    source = recipe.source + (" with overrides" if overrides else "")
    document = dict(recipe.heading)
    named = document.get("recipe")
    if isinstance(named, str) and _is_relative_file(named):
        document["recipe"] = str(recipe.path.parent / named)
    own = [text for text in overrides if _first_key(text) in AblationConfig.model_fields]
    document = apply_overrides(document, own)
    laid_over = document.get("overrides") or {}
    if not isinstance(laid_over, dict):
        raise ConfigError(source, [Problem("overrides", "wants keys with dots and their values")])
    for text in overrides:
        if text not in own:
            laid_over = _laid_over(laid_over, text)
    document["overrides"] = laid_over
    config = validate(AblationConfig, document, source)
    if problems := [*problems_of(config), *_metric_problems(config)]:
        raise ConfigError(source, problems)
    return recipe.name, source, config


def as_override(key: str, value: Any) -> str:
    """Return `key=value` as one writes it on the command line."""
    return f"{key}={_flow(value)}"


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, which reads back equal."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value not in _CONSTANTS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _metric_problems(config: AblationConfig) -> list[Problem]:
    allowed = _OF_VALIDATION if config.evaluate is None else _OF_EVALUATION
    if config.metric in allowed:
        return []
    close = did_you_mean(config.metric, allowed)
    listed = f"allowed: {', '.join(allowed)}"
    if config.evaluate is None and config.metric in _OF_EVALUATION:
        close = "nothing is evaluated here"
    hint = f"{close}; {listed}" if close else listed
    return [Problem("metric", f"got {config.metric!r}", hint)]


def _first_key(override: str) -> str:
    return override.partition("=")[0].partition(".")[0].strip()


def _laid_over(laid_over: dict[str, Any], override: str) -> dict[str, Any]:
    """Return the overrides of a study with one more, in place of what it makes void."""
    apply_overrides({}, [override])  # raises with the override's own words
    key, _, text = override.partition("=")
    key = key.strip()
    value = apply_overrides({}, [f"value={text}"])["value"]
    kept = {k: v for k, v in laid_over.items() if k != key and not k.startswith(f"{key}.")}
    return {**kept, key: value}


def _is_relative_file(name: str) -> bool:
    is_file = "/" in name or name.endswith((".yaml", ".yml"))
    return is_file and not name.startswith("~") and not Path(name).is_absolute()
