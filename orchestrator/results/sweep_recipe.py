"""The best settings of a search as a recipe: a file to submit, review and keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.plan import Plan, Request, apply_overrides_to_recipe, plan_train
from orchestrator.jobs.recipes import Layer, Recipe, load_recipe, recipe_files
from orchestrator.jobs.space import trial_config
from orchestrator.jobs.spec import Resources
from orchestrator.results.sweep import SweepTrial
from workloads.config.document import dump_document, load_document
from workloads.config.errors import ConfigError
from workloads.config.sweep import SweepConfig
from workloads.config.train import TrainConfig
from workloads.config.validate import validate

FILE = "best.yaml"
"""Its name among the artifacts of a sweep."""
_HEADING = ("study", "description", "network", "published", "job", "extends")


def best_recipe(
    sweep: SweepConfig, trial: SweepTrial, *, job_id: str, study: str, resources: Resources
) -> str:
    """Return a trial's config as a recipe that `gcpctl submit train` takes.

    It trains exactly what the trial trained: the configs are equal. It builds on the sweep's recipe
    and says only what differs, where that is a recipe that comes with gcpctl; else it says all.

    Args:
        job_id: Of the sweep.
        study: Where its runs are kept.
        resources: Of the sweep's job.
    """
    config = trial_config(sweep.base, trial.values)
    own = resources.with_workers(sweep.trial_workers)
    document = _as_change(sweep.recipe, config, own, study) or _in_full(config, own, study)
    reached = ", ".join(
        f"{o.metric} {trial.metrics[o.metric]:.6g}"
        for o in sweep.objectives
        if o.metric in trial.metrics
    )
    described = {"description": f"{trial.name} of {job_id}: {reached}"}
    lines = [f"# The best of the sweep {job_id}: trial {trial.name}, {reached}."]
    if sweep.scheduler is not None and sweep.scheduler.name == "pbt":
        lines.append("# Its settings changed while it trained; these are the last ones.")
    lines.append(f"# gcpctl submit train {FILE}")
    return "\n".join([*lines, dump_document(described | document)])


def _as_change(
    name: str, config: TrainConfig, resources: Resources, study: str
) -> dict[str, Any] | None:
    """Return what is to be said beyond `extends: name`; None if the two do not give the config."""
    if name not in recipe_files("train"):
        return None
    try:
        plan = plan_train(name, (), Request(to_be_given=True))
        change = _difference(plan.spec.config, config.model_dump(mode="json"))
        document = {"extends": name} | _differing_heading(plan, resources, study) | change
        gives = _config_of(document, name)
    except (GcpctlError, ConfigError):
        return None
    return document if gives == config else None


def _in_full(config: TrainConfig, resources: Resources, study: str) -> dict[str, Any]:
    return {"study": study, **config.model_dump(mode="json"), "job": _job(resources)}


def _differing_heading(plan: Plan, resources: Resources, study: str) -> dict[str, Any]:
    heading: dict[str, Any] = {} if plan.spec.study == study else {"study": study}
    theirs, own = _job(plan.spec.resources), _job(resources)
    differing = {key: value for key, value in own.items() if theirs[key] != value}
    return heading | ({"job": differing} if differing else {})


def _job(resources: Resources) -> dict[str, Any]:
    return resources.model_dump()


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be laid over `before` to get `after`; another choice is said whole."""
    found: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key)
        if key in before and old == value:
            continue
        alike = isinstance(old, dict) and isinstance(value, dict)
        if alike and old.get("name") == value.get("name"):  # type: ignore[union-attr]
            found[key] = _difference(old, value)  # type: ignore[arg-type]
        else:
            found[key] = value
    return found


def _config_of(document: dict[str, Any], base: str) -> TrainConfig:
    """Return the config that a recipe file with this content would have."""
    text = load_document(dump_document(document), FILE)
    layers = (Layer(Path(FILE), text), *load_recipe(base, "train").layers)
    merged = Recipe(Path(FILE).stem, "train", layers).document
    merged = apply_overrides_to_recipe(merged, ())
    given = {key: value for key, value in merged.items() if key not in _HEADING}
    return validate(TrainConfig, given, FILE)
