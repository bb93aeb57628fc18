"""From a recipe and overrides to a validated `JobSpec`. No effect on anything.

Every mistake a user can make surfaces here, before anything runs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from orchestrator.jobs import ids
from orchestrator.jobs.errors import InfeasibleError
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import Recipe, load_recipe
from orchestrator.jobs.spec import JobOptions, JobSpec, Resources
from workloads.config.base import Config
from workloads.config.batches import batch_size_per_worker
from workloads.config.data import ImageFolderConfig
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig
from workloads.config.validate import validate

_SMOKE = ("epochs=1", "schedule.warmup_epochs=0", "steps_per_epoch=4", "study=smoke")


class _Heading(Config):
    """What a recipe says besides its config."""

    study: str = Field(default="default", min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]+$")
    description: str = ""


@dataclass(frozen=True)
class Request:
    """What the command line asked for, besides the recipe and its overrides."""

    name: str | None = None
    workers: int | None = None
    priority: int | None = None
    seed: int | None = None
    smoke: bool = False
    after: tuple[str, ...] = ()
    folder: Path | None = None
    """Where relative data folders begin; None where the cluster sees other folders than we do."""


@dataclass(frozen=True)
class Plan:
    """A spec, ready to be recorded, and what it was made from."""

    spec: JobSpec
    config: TrainConfig
    recipe: Recipe
    overrides: tuple[str, ...]

    def with_new_id(self) -> "Plan":
        """Return the same plan under another made-up id."""
        job_id = ids.new_job_id(self.spec.kind, self.spec.recipe)
        return replace(self, spec=self.spec.model_copy(update={"job_id": job_id}))

    @property
    def config_sha256(self) -> str:
        """Digest of the resolved config: equal digests ask for equal trainings."""
        text = json.dumps(self.spec.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def plan_train(recipe_name: str, overrides: Sequence[str], request: Request) -> Plan:
    """Plan a training.

    Args:
        recipe_name: Name of a recipe, or path of a YAML file.
        overrides: `a.b=value`, laid over the recipe in this order.
        request: The command's options; they are laid over the overrides.

    Raises:
        NotFoundError: No such recipe.
        ConfigError: Anything in recipe, overrides or options that cannot be used.
    """
    recipe = load_recipe(recipe_name, "train")
    all_overrides = (*overrides, *_as_overrides(request))
    document = apply_overrides(recipe.document, all_overrides)
    source = recipe.source + (" with overrides" if all_overrides else "")
    options = validate(JobOptions, _section(document, "job", source), f"{source}, section job")
    heading = validate(
        _Heading, {k: document.pop(k) for k in ("study", "description") if k in document}, source
    )
    config = _with_absolute_path(validate(TrainConfig, document, source), request, source)
    _check_batch(config, options, source)
    if request.name is not None and (problem := ids.name_problem(request.name)):
        raise ConfigError("--name", [Problem("", f"{request.name!r} cannot be a name", problem)])
    spec = JobSpec(
        job_id=request.name or ids.new_job_id("train", recipe.name),
        kind="train",
        recipe=recipe.name,
        study=heading.study,
        description=heading.description.strip(),
        config=config.model_dump(mode="json"),
        resources=options.resources(),
        priority=options.priority,
        max_retries=options.max_retries,
        time_limit_s=options.time_limit_s,
        after=request.after,
    )
    return Plan(spec=spec, config=config, recipe=recipe, overrides=tuple(overrides))


def check_feasible(resources: Resources, nodes: Sequence[Node], *, where: str) -> None:
    """Refuse what the cluster could not hold even if it were idle.

    Raises:
        InfeasibleError: Says what is asked for, what there is, and what would fit.
    """
    fits = sum(_workers_on(node, resources) for node in nodes)
    if fits >= resources.num_workers:
        return
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    there = f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'s'[: len(nodes) != 1]}"
    hint = (
        f"at most {fits} such workers fit: --workers {fits}"
        if fits
        else "no single worker fits on any node; see job.cpus_per_worker and job.gpus_per_worker"
    )
    raise InfeasibleError(
        f"the job needs {resources.describe()}; {where} has {there}, and would never start it",
        hint,
    )


def _workers_on(node: Node, resources: Resources) -> int:
    by_cpu = int(node.cpus // resources.cpus_per_worker)
    if not resources.gpus_per_worker:
        return by_cpu
    return min(by_cpu, int(node.gpus // resources.gpus_per_worker))


def _with_absolute_path(config: TrainConfig, request: Request, source: str) -> TrainConfig:
    """Workers start in another folder than the person who typed a relative path."""
    if not isinstance(config.data, ImageFolderConfig):
        return config
    path = Path(config.data.path).expanduser()
    if request.folder is not None:
        path = request.folder / path
    if not path.is_absolute():
        problem = f"{config.data.path!r} is relative; say where the folder is on the cluster"
        raise ConfigError(source, [Problem("data.path", problem, "begin it with /")])
    data = config.data.model_copy(update={"path": str(path)})
    return config.model_copy(update={"data": data})


def _as_overrides(request: Request) -> list[str]:
    given = {
        "job.num_workers": request.workers,
        "job.priority": request.priority,
        "seed": request.seed,
    }
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    return overrides + (list(_SMOKE) if request.smoke else [])


def _section(document: dict[str, Any], key: str, source: str) -> dict[str, Any]:
    section = document.pop(key, None) or {}
    if not isinstance(section, dict):
        raise ConfigError(source, [Problem(key, f"wants a mapping, got {section!r}")])
    return section


def _check_batch(config: TrainConfig, options: JobOptions, source: str) -> None:
    batch_size_per_worker(config.global_batch_size, options.num_workers, source)
