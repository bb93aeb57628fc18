"""From a recipe and a search space to the `JobSpec` of a sweep. No effect on anything.

The job holds a whole number of trials' workers: as many as the cluster could hold at most, and it
starts with as many of them as are free. Its driver runs `job.num_workers // trial_workers` trials
at once.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from orchestrator.jobs import ids
from orchestrator.jobs.plan import (
    Plan,
    Request,
    apply_overrides_to_recipe,
    plan_train,
    refuse_idle_epochs,
    share_out,
    workers_that_fit,
)
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import Recipe, load_recipe
from orchestrator.jobs.space import MAX_GRID, grid, grid_values, in_order, num_trials, trial_config
from orchestrator.jobs.space_checks import check_points, refuse_keys
from orchestrator.jobs.spec import JobOptions, JobSpec, Resources
from orchestrator.jobs.sweep_options import parse_objective, parse_scheduler, read_space
from orchestrator.jobs.sweep_rules import refuse_what_cannot_work
from workloads.config.errors import ConfigError, Problem
from workloads.config.sweep import Dimension, SweepConfig
from workloads.config.train import TrainConfig

DEFAULT_TRIALS = 20
_MOST_WORKERS = 4096
_EACH_COUNT_TO = 32
"""Up to so many parallel trials each number may be started with; of more, some."""

Search = Literal["tpe", "random", "grid"]


@dataclass(frozen=True)
class TuneRequest:
    """What the command line asked for, besides the recipe and its overrides."""

    space: tuple[str, ...]
    """Dimensions, files and names, as `--space` was given them."""
    trials: int | None = None
    search: Search | None = None
    scheduler: str | None = None
    objectives: tuple[str, ...] = ()
    seed: int = 0
    max_parallel: int | None = None
    workers: int | None = None
    """Of each trial; None for one, or those of a recipe that asks for GPUs."""
    name: str | None = None
    priority: int | None = None
    resolve_weights: Callable[[str], str] | None = None
    folder: Path | None = None
    """Where relative paths begin; None where the cluster sees other folders than we do."""
    nodes: Sequence[Node] = ()
    """Machines of the cluster; none if they are not known."""


@dataclass(frozen=True)
class TunePlan:
    """A spec, ready to be recorded, and what it was made from.

    Attributes:
        trial: The training that every trial is a change of.
        remarks: What a person should know before it runs.
    """

    spec: JobSpec
    config: SweepConfig
    recipe: Recipe
    overrides: tuple[str, ...]
    trial: Plan
    remarks: tuple[str, ...] = ()

    def with_new_id(self) -> "TunePlan":
        """Return the same plan under another made-up id."""
        job_id = ids.new_job_id(self.spec.kind, self.spec.recipe)
        return replace(self, spec=self.spec.model_copy(update={"job_id": job_id}))

    def tags(self) -> dict[str, str]:
        """Return what is recorded with the job besides what every job has: nothing."""
        return {}

    @property
    def num_parallel(self) -> int:
        """Most trials that run at once."""
        return self.spec.resources.num_workers // self.config.trial_workers

    @property
    def config_sha256(self) -> str:
        """Digest of the resolved config: equal digests ask for equal searches."""
        text = json.dumps(self.spec.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def plan_tune(recipe_name: str, overrides: Sequence[str], request: TuneRequest) -> TunePlan:
    """Plan a search.

    Args:
        recipe_name: Name of a training recipe, or path of a YAML file.
        overrides: `a.b=value`, laid over the recipe in every trial.
        request: The command's options.

    Raises:
        NotFoundError: No such recipe or space.
        ConfigError: Anything that cannot be used: in recipe and overrides, in the space, a value
            of it that no trial could be trained with, or a search that cannot work.
    """
    workers, remarks = _trial_workers(recipe_name, overrides, request)
    trial = plan_train(recipe_name, overrides, _as_training(request, workers))
    space = in_order(read_space(request.space))
    refuse_keys(space, overrides)
    base = _base(trial, overrides)
    check_points(space, base, partial(_check_trainable, workers=workers))
    scheduler = parse_scheduler(request.scheduler) if request.scheduler else None
    search = request.search or ("random" if scheduler and scheduler.name == "pbt" else "tpe")
    sweep = SweepConfig(
        recipe=_lasting_name(recipe_name, trial.recipe),
        base=base,
        space=space,
        num_trials=_num_trials(search, space, request.trials),
        search=search,
        scheduler=scheduler,
        objectives=_objectives(request.objectives),
        seed=request.seed,
        max_parallel=request.max_parallel,
        trial_workers=workers,
    )
    refuse_what_cannot_work(sweep, trial.config)
    if request.name is not None and (problem := ids.name_problem(request.name)):
        raise ConfigError("--name", [Problem("", f"{request.name!r} cannot be a name", problem)])
    if any(dimension.key == "seed" for dimension in space):
        remarks += (
            "seed is searched: what differs between seeds alone is chance, and the best of many "
            "seeds is no better recipe",
        )
    if sweep.search == "random" and request.search is None:
        remarks += ("pbt changes settings under way, so they are drawn at random to begin with",)
    return TunePlan(
        spec=_spec(sweep, trial, request),
        config=sweep,
        recipe=trial.recipe,
        overrides=tuple(overrides),
        trial=trial,
        remarks=remarks,
    )


def describe(sweep: SweepConfig) -> str:
    """Return what is searched, in a sentence."""
    keys = ", ".join(dict.fromkeys(dimension.key for dimension in sweep.space))
    goals = " and ".join(
        f"{'high' if goal.direction == 'max' else 'low'} {goal.metric}" for goal in sweep.objectives
    )
    how = sweep.search + (f" with {sweep.scheduler.name}" if sweep.scheduler else "")
    count = num_trials(sweep)
    return f"Search of {keys} for {goals}: {count} trial{'s'[: count > 1]}, {how}."


def _trial_workers(
    recipe_name: str, overrides: Sequence[str], request: TuneRequest
) -> tuple[int, tuple[str, ...]]:
    """Return the workers of a trial, and a remark where they are not the recipe's.

    Trials of one worker share warm processes; so one is usual, but where a worker is a GPU the
    recipe's number is what its batch was made for.
    """
    if request.workers is not None:
        return request.workers, ()
    document = apply_overrides_to_recipe(load_recipe(recipe_name, "train").document, overrides)
    job = document.get("job")
    job = job if isinstance(job, dict) else {}
    asked = job.get("num_workers", 1)
    given = any(text.partition("=")[0].strip() == "job.num_workers" for text in overrides)
    if not isinstance(asked, int) or job.get("gpus_per_worker") or given or asked <= 1:
        return asked if isinstance(asked, int) else 1, ()
    return 1, (f"a trial has 1 worker, the recipe {asked}; --workers {asked} gives trials as many",)


def _as_training(request: TuneRequest, workers: int) -> Request:
    return Request(
        workers=max(workers, 1),
        priority=request.priority,
        resolve_weights=request.resolve_weights,
        folder=request.folder,
    )


def _base(trial: Plan, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the recipe as a mapping for `TrainConfig`, its places those that the cluster sees."""
    document = apply_overrides_to_recipe(trial.recipe.document, overrides)
    base = {key: value for key, value in document.items() if key in TrainConfig.model_fields}
    config = trial.config
    if (path := getattr(config.data, "path", None)) is not None:
        data = base.get("data")
        base["data"] = (data if isinstance(data, dict) else {}) | {
            "name": config.data.name,
            "path": path,
        }
    if config.init is not None:
        base["init"] = base["init"] | {"weights": config.init.weights}
    assert trial_config(base, {}) == config
    return base


def _check_trainable(config: TrainConfig, *, workers: int) -> None:
    """Raise ConfigError for a config that is valid, and that these workers cannot train."""
    refuse_idle_epochs(config, "")
    share_out(config, JobOptions(num_workers=workers), "")


def _num_trials(search: Search, space: Sequence[Dimension], asked: int | None) -> int:
    """Return `SweepConfig.num_trials`: of a grid, 1 for each point."""
    if search != "grid":
        return asked or DEFAULT_TRIALS
    if any(grid_values(dimension.domain) is None for dimension in space):
        return 1  # refused with its reason
    points = 0
    for points, _ in enumerate(grid(space), start=1):
        if points > MAX_GRID:
            hint = "fewer values, or --search random"
            raise ConfigError("--search", [Problem("grid", f"has over {MAX_GRID} points", hint)])
    if asked not in (None, points):
        message = f"is {asked}, and the grid has {points} points, each a trial"
        hint = "leave it out; a second trial of a point would train the same"
        raise ConfigError("tune", [Problem("--trials", message, hint)])
    return 1


def _objectives(texts: Sequence[str]) -> Any:
    if len(texts) > 3:
        raise ConfigError("--objective", [Problem("", f"{len(texts)} are given", "at most 3")])
    return tuple(map(parse_objective, texts or ("val/top1",)))


def _lasting_name(name: str, recipe: Recipe) -> str:
    """Return the recipe's name, or the whole path of one that is a file of the person's."""
    return name if name == recipe.name else str(recipe.path.absolute())


def _spec(sweep: SweepConfig, trial: Plan, request: TuneRequest) -> JobSpec:
    resources, counts = _resources(sweep, trial.spec.resources, request.nodes)
    return JobSpec(
        job_id=request.name or ids.new_job_id("tune", trial.recipe.name),
        kind="tune",
        recipe=trial.recipe.name,
        study=trial.spec.study,
        description=describe(sweep),
        config=sweep.model_dump(mode="json"),
        resources=resources,
        worker_counts=counts,
        priority=trial.spec.priority,
        max_retries=trial.spec.max_retries,
        time_limit_s=trial.spec.time_limit_s,
    )


def _resources(
    sweep: SweepConfig, trial: Resources, nodes: Sequence[Node]
) -> tuple[Resources, tuple[int, ...]]:
    """Return what the job holds, and the numbers of workers that it may start with."""
    each = sweep.trial_workers
    most = min(num_trials(sweep), _MOST_WORKERS // each)
    if sweep.max_parallel is not None:
        most = min(most, sweep.max_parallel)
    elif not nodes:
        most = 1
    if nodes:
        most = max(1, min(most, workers_that_fit(trial, nodes) // each))
    if most == 1:
        return trial.with_workers(each), ()
    steps = range(_EACH_COUNT_TO, most, max(1, most // _EACH_COUNT_TO))
    parallel = sorted({*range(1, min(most, _EACH_COUNT_TO) + 1), *steps, most})
    ends = {"num_workers": most * each, "min_workers": each}
    return trial.model_copy(update=ends), tuple(each * count for count in parallel)
