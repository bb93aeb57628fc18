"""The options of `gcpctl tune` as text: spaces and their files, schedulers, objectives."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.recipes import recipe_files
from orchestrator.jobs.space_text import SOURCE, parse_dimension
from orchestrator.jobs.sweep_rules import METRICS
from workloads.config.base import Config
from workloads.config.document import apply_overrides, load_document
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.sweep import (
    AshaConfig,
    Dimension,
    HyperBandConfig,
    MedianConfig,
    Objective,
    PbtConfig,
    SchedulerConfig,
)
from workloads.config.validate import validate

KIND = "tune"
"""Folder of the spaces among the recipes."""
SCHEDULERS: dict[str, type[AshaConfig | HyperBandConfig | MedianConfig | PbtConfig]] = {
    "asha": AshaConfig,
    "hyperband": HyperBandConfig,
    "median": MedianConfig,
    "pbt": PbtConfig,
}
_CALL = re.compile(r"(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


class SpaceFile(Config):
    """A space in a file."""

    description: str = ""
    space: tuple[str, ...] = Field(min_length=1)
    """Each as on the command line: `optim.lr=loguniform(1e-3, 1)`."""


def read_space(texts: Sequence[str]) -> tuple[Dimension, ...]:
    """Read what `--space` was given: dimensions, YAML files, names of spaces.

    Raises:
        ConfigError: Something cannot be read; with every problem on the command line at once.
        NotFoundError: No such file or space.
    """
    dimensions: list[Dimension] = []
    problems: list[Problem] = []
    for text in texts:
        lines = (text,) if "(" in text else load_space(text).space
        for line in lines:
            try:
                dimensions.append(parse_dimension(line))
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(SOURCE, problems)
    if not dimensions:
        hint = "such as --space 'optim.lr=loguniform(1e-3, 1)', or the name of a space: "
        raise ConfigError(SOURCE, [Problem("", "is needed", hint + ", ".join(recipe_files(KIND)))])
    return tuple(dimensions)


def load_space(name: str) -> SpaceFile:
    """Load a space by its name, or by the path of a YAML file.

    Raises:
        NotFoundError: There is none.
        ConfigError: The file is no space.
    """
    known = recipe_files(KIND)
    if name in known:
        path = known[name][1]
    elif "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(name))
    else:
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
        kinds = "KEY=choice(...), a YAML file, or the name of a space"
        raise NotFoundError(f"--space {name!r} is none of {kinds}", hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(f"cannot read the space {path}: {error}") from None
    return validate(SpaceFile, load_document(text, str(path)), str(path))


def parse_scheduler(text: str) -> SchedulerConfig:
    """Read `asha`, or `asha(grace_epochs=2, reduction_factor=4)`.

    Raises:
        ConfigError: There is no such scheduler, or no such setting of it.
    """
    source = "--scheduler"
    match = _CALL.fullmatch(text.strip())
    name = match["name"] if match else text
    if match is None or name not in SCHEDULERS:
        listed = f"one of {', '.join(SCHEDULERS)}, with settings as in asha(grace_epochs=2)"
        hint = "; ".join(filter(None, [did_you_mean(name, SCHEDULERS), listed]))
        raise ConfigError(source, [Problem("", f"there is no scheduler {text!r}", hint)])
    settings = [part for part in (match["arguments"] or "").split(",") if part.strip()]
    try:
        document = apply_overrides({"name": name}, settings)
    except ConfigError as error:
        raise ConfigError(source, error.problems) from None
    return validate(SCHEDULERS[name], document, source)


def parse_objective(text: str) -> Objective:
    """Read `val/top1:max`, or `val/top1` for what is better of it.

    Raises:
        ConfigError: Trainings record no such metric, or the direction is none.
    """
    metric, _, direction = text.strip().partition(":")
    problem: Problem | None = None
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS) or f"one of {', '.join(METRICS)}"
        if metric.startswith("eval/"):
            hint = f"trials are not evaluated; val/{metric.removeprefix('eval/')} is alike"
        problem = Problem(metric, "is no number that trials record", hint)
    elif direction not in ("", "max", "min"):
        problem = Problem(text, f"{direction!r} is no direction", "max or min, as in val/top1:max")
    if problem is not None:
        raise ConfigError("--objective", [problem])
    better = direction or METRICS[metric]
    return Objective(metric=metric, direction="max" if better == "max" else "min")
