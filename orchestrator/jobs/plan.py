"""From a recipe and overrides to a validated `JobSpec`. No effect on anything.

Every mistake a user can make surfaces here, before anything runs.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from orchestrator.jobs import ids
from orchestrator.jobs.data_paths import with_absolute_paths
from orchestrator.jobs.errors import InfeasibleError
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.recipes import Recipe, load_recipe, with_model_of_network
from orchestrator.jobs.spec import JobOptions, JobSpec, Published, Resources
from workloads.config.base import Config
from workloads.config.batches import (
    batch_size_per_worker,
    count_parts,
    refuse_lone_values,
    worker_counts,
)
from workloads.config.data import SOURCE_CONFIGS, has_size_of_its_own
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError, Problem
from workloads.config.rates import first_epoch_at_rest
from workloads.config.train import TrainConfig
from workloads.config.validate import validate
from workloads.config.zoo import load_zoo

TO_BE_GIVEN = "/to/be/given"
"""Stands for a path that a recipe asks for."""
_SMOKE = (
    "epochs=1",
    "schedule.warmup_epochs=0",
    "steps_per_epoch=4",
    "validation.from_epoch=1",
    "study=smoke",
)


class _Heading(Config):
    """What a recipe says besides its config."""

    study: str = Field(default="default", min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]+$")
    description: str = ""
    published: Published | None = None
    network: str | None = None


@dataclass(frozen=True)
class Request:
    """What the command line asked for, besides the recipe and its overrides."""

    name: str | None = None
    workers: int | tuple[int, int] | None = None
    """A number, or the fewest and the most."""
    priority: int | None = None
    seed: int | None = None
    smoke: bool = False
    after: tuple[str, ...] = ()
    to_be_given: bool = False
    """Fill in what the recipe leaves to the person who submits: to look at it, not to run it."""
    resolve_weights: Callable[[str], str] | None = None
    """Turns the name of a job in `init.weights` into the place of its weights."""
    folder: Path | None = None
    """Where relative paths begin; None where the cluster sees other folders than we do."""


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
    source = recipe.source + (" with overrides" if all_overrides or request.smoke else "")
    document = apply_overrides_to_recipe(recipe.document, all_overrides)
    if request.smoke:
        document = _shortened(document)
    if request.to_be_given:
        document = _with_places_to_be_given(document)
    options = validate(JobOptions, _section(document, "job", source), f"{source}, section job")
    heading = validate(
        _Heading, {k: document.pop(k) for k in _Heading.model_fields if k in document}, source
    )
    config = validate(TrainConfig, document, source)
    refuse_idle_epochs(config, source)
    if config.init is not None and request.resolve_weights is not None:
        weights = {"weights": request.resolve_weights(config.init.weights)}
        config = config.model_copy(update={"init": config.init.model_copy(update=weights)})
    config = with_absolute_paths(config, request.folder, source)
    if request.name is not None and (problem := ids.name_problem(request.name)):
        raise ConfigError("--name", [Problem("", f"{request.name!r} cannot be a name", problem)])
    counts = share_out(config, options, source)
    resources = options.resources()
    if counts:
        ends = {"min_workers": counts[0], "num_workers": counts[-1]}
        resources = resources.model_copy(update=ends)
    spec = JobSpec(
        job_id=request.name or ids.new_job_id("train", recipe.name),
        kind="train",
        recipe=recipe.name,
        study=heading.study,
        description=heading.description.strip(),
        config=config.model_dump(mode="json"),
        resources=resources,
        worker_counts=counts,
        published=heading.published,
        priority=options.priority,
        max_retries=options.max_retries,
        time_limit_s=options.time_limit_s,
        after=request.after,
    )
    return Plan(spec=spec, config=config, recipe=recipe, overrides=tuple(overrides))


def apply_overrides_to_recipe(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay overrides over a recipe; another `network` replaces the whole model.

    The images have the size that the network is published for, unless another is given or the
    source's images are small and have a size of their own.

    Raises:
        ConfigError: An override cannot be read, or there is no such network.
    """
    networks = [text for text in overrides if text.partition("=")[0].strip() == "network"]
    if networks:
        named = apply_overrides({}, networks)
        document = document | with_model_of_network(named, "command line")
    document = apply_overrides(document, [text for text in overrides if text not in networks])
    images, network = document.get("images", {}), document.get("network")
    if network is None or not isinstance(images, dict) or "size" in images:
        return document
    if has_size_of_its_own(document.get("data")):
        return document
    return document | {"images": {**images, "size": load_zoo()[network].image_size}}


def check_feasible(resources: Resources, nodes: Sequence[Node], *, where: str) -> None:
    """Refuse what the cluster could not hold even if it were idle.

    Raises:
        InfeasibleError: Says what is asked for, what there is, and what would fit.
    """
    fits = workers_that_fit(resources, nodes)
    if fits >= resources.least_workers:
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


def workers_that_fit(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many workers of a kind the cluster could hold if it were idle."""
    return sum(_workers_on(node, resources) for node in nodes)


def _workers_on(node: Node, resources: Resources) -> int:
    by_cpu = int(node.cpus // resources.cpus_per_worker)
    if not resources.gpus_per_worker:
        return by_cpu
    return min(by_cpu, int(node.gpus // resources.gpus_per_worker))


def _as_overrides(request: Request) -> list[str]:
    given: dict[str, Any] = {"job.priority": request.priority, "seed": request.seed}
    if isinstance(request.workers, int):
        given |= {"job.num_workers": request.workers, "job.min_workers": "null"}
    elif request.workers is not None:
        least, most = request.workers
        given |= {"job.num_workers": most, "job.min_workers": least}
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _shortened(document: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with one epoch of four steps, and nothing that would need more."""
    schedule = document.get("schedule")
    cools = isinstance(schedule, dict) and "cooldown_epochs" in schedule
    return apply_overrides(document, [*_SMOKE, *(["schedule.cooldown_epochs=0"] if cools else [])])


def _section(document: dict[str, Any], key: str, source: str) -> dict[str, Any]:
    section = document.pop(key, None)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(source, [Problem(key, f"wants a mapping, got {section!r}")])
    return section


def _with_places_to_be_given(document: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with a mark where it asks for `data.path` and `init.weights`."""
    data, init = document.get("data"), document.get("init")
    data = {"name": data} if isinstance(data, str) else data
    source = SOURCE_CONFIGS.get(str(data.get("name"))) if isinstance(data, dict) else None
    path = source.model_fields.get("path") if source is not None else None
    if isinstance(data, dict) and path is not None and path.is_required():
        document = document | {"data": {"path": TO_BE_GIVEN, **data}}
    if isinstance(init, dict):
        document = document | {"init": {"weights": TO_BE_GIVEN, **init}}
    return document


def refuse_idle_epochs(config: TrainConfig, source: str) -> None:
    """Raise ConfigError where the schedule is at 0 before the training is over."""
    resting = first_epoch_at_rest(config)
    if resting is not None:
        message = f"the rate is 0 after {resting} epochs, and {config.epochs} are asked for"
        hint = f"epochs={resting}, or a schedule that is as long" if resting else ""
        if getattr(config.schedule, "cooldown_epochs", 0):
            hint = "a cooldown needs schedule.final_lr_ratio above 0"
        raise ConfigError(source, [Problem("schedule", message, hint)])


def share_out(config: TrainConfig, options: JobOptions, source: str) -> tuple[int, ...]:
    """Return the numbers of workers that may share the batch; empty if only one was asked for.

    Raises:
        ConfigError: The batch cannot be shared out so.
    """
    batch, in_pairs = config.global_batch_size, config.mix is not None
    least, most = options.least_workers, options.num_workers
    if least == most:
        counts: tuple[int, ...] = ()
        shares = [batch_size_per_worker(batch, most, source, in_pairs=in_pairs)]
    else:
        counts = worker_counts(batch, least, most, source, in_pairs=in_pairs)
        shares = [batch // count for count in counts]
    for share in shares:
        most_at_once = config.compute.max_images_per_worker
        parts = count_parts(share, most_at_once, source, in_pairs=in_pairs)
        refuse_lone_values(config, share // parts, source)
    return counts
