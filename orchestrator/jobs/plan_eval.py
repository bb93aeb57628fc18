"""From a checkpoint and options to the `JobSpec` of an evaluation. No effect on anything."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from orchestrator.jobs import ids
from orchestrator.jobs.checkpoints import ResolvedCheckpoint
from orchestrator.jobs.data_paths import with_absolute_paths
from orchestrator.jobs.eval_data import data_of, legacy_images
from orchestrator.jobs.job import TAG_CHECKPOINT, TAG_EVALUATED
from orchestrator.jobs.spec import JobOptions, JobSpec
from workloads.config.base import Config
from workloads.config.data import SOURCE_CONFIGS
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError, Problem
from workloads.config.evaluate import EvalConfig
from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig
from workloads.config.train import check_positions
from workloads.config.validate import validate
from workloads.evaluation.class_match import number_hint

STUDY = "evaluations"
"""Where evaluations of weights go that no job of this cluster trained."""
_SOURCE = "submit eval"
_HINT = "such as --data /data/birds (train/<class>/*, val/<class>/*, or packed), --data digits"
_WEIGHT_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".safetensors", ".ckpt", ".gcpnet")


class _Heading(Config):
    """What overrides may say besides the config."""

    study: str = Field(default=STUDY, min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]+$")
    description: str = ""


@dataclass(frozen=True)
class KnownNetwork:
    """What is known of the network of a file before a worker opens it.

    Attributes:
        model: Its config; None leaves telling it to the worker.
        name: Its name in the zoo; empty if it has none.
        images: How its images are prepared; None takes what is usual for the data.
        in_channels: Channels of its images; None if unknown.
        num_classes: Width of its output; None if unknown.
        classes: What its outputs are called, in their order; None if unknown.
    """

    model: ModelConfig | None = None
    name: str = ""
    images: ImagesConfig | None = None
    in_channels: int | None = None
    num_classes: int | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asked for, besides the checkpoint and the overrides."""

    data: str | None = None
    options: Mapping[str, str | int] | None = None
    """Keys of `EvalConfig` that have an option of their own."""
    name: str | None = None
    workers: int | None = None
    priority: int | None = None
    after: tuple[str, ...] = ()
    folder: Path | None = None
    """Where relative paths begin; None where the cluster sees other folders than we do."""


@dataclass(frozen=True)
class EvalPlan:
    """A spec, ready to be recorded, and what it was made from."""

    spec: JobSpec
    config: EvalConfig
    overrides: tuple[str, ...]
    stem: str
    """What made-up ids are made of."""
    evaluated_job: str = ""
    """Id of the job that trained the weights, if one of this cluster did."""

    def with_new_id(self) -> "EvalPlan":
        """Return the same plan under another made-up id."""
        job_id = ids.new_job_id("eval", self.stem)
        return replace(self, spec=self.spec.model_copy(update={"job_id": job_id}))

    def tags(self) -> dict[str, str]:
        """Return what is recorded with the job besides what every job has."""
        found = {TAG_CHECKPOINT: self.config.origin}
        return found | ({TAG_EVALUATED: self.evaluated_job} if self.evaluated_job else {})

    @property
    def config_sha256(self) -> str:
        """Digest of the resolved config: equal digests ask for equal evaluations."""
        text = json.dumps(self.spec.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def plan_eval(
    checkpoint: ResolvedCheckpoint,
    network: KnownNetwork,
    overrides: Sequence[str],
    request: EvalRequest,
) -> EvalPlan:
    """Plan an evaluation.

    Of a job's checkpoint, data, images, network and resources per worker are those of its
    training, and so is the study, so that the two stand side by side; of a file, the data must be
    said.

    Args:
        checkpoint: The weights.
        network: What is known of a file's network; not looked at for a job's checkpoint.
        overrides: `a.b=value`, laid over all that, in this order.
        request: The command's options; they are laid over the overrides.

    Raises:
        ConfigError: Anything in overrides or options that cannot be used.
        NotFoundError: A folder of data that is not there.
    """
    start = _of_job(checkpoint) if checkpoint.job is not None else _of_file(network)
    if request.data is not None:
        start["data"] = data_of(request.data, request.folder)
    elif checkpoint.job is None and not _keys(overrides) & {"data", "data.name"}:
        raise ConfigError(_SOURCE, [Problem("--data", "is required with a file of weights", _HINT)])
    keys = _keys(overrides)
    if "images.size" in keys and "images.resize" not in keys:
        start.get("images", {}).pop("resize", None)  # what is usual for the new size
    document = apply_overrides(start, (*overrides, *_as_overrides(request)))
    if taken := sorted({"weights", "origin"} & set(document)):
        raise ConfigError(_SOURCE, [Problem(key, "is what --checkpoint says") for key in taken])
    section = document.pop("job", None)
    section = {} if section is None else section
    if not isinstance(section, dict):
        raise ConfigError(_SOURCE, [Problem("job", f"wants a mapping, got {section!r}")])
    options = validate(JobOptions, section, f"{_SOURCE}, section job")
    if options.min_workers is not None:
        problem = Problem("job.min_workers", "an evaluation has a fixed number of workers")
        raise ConfigError(_SOURCE, [problem])
    headed = [key for key in _Heading.model_fields if key in document]
    heading = {key: document.pop(key) for key in headed}
    said = validate(_Heading, heading, _SOURCE)
    document |= {"weights": checkpoint.weights, "origin": checkpoint.origin}
    config = validate(EvalConfig, document, _SOURCE)
    config = with_absolute_paths(config, request.folder, _SOURCE)
    _check(config, checkpoint, network)
    if request.name is not None and (problem_text := ids.name_problem(request.name)):
        problem = Problem("", f"{request.name!r} cannot be a name", problem_text)
        raise ConfigError("--name", [problem])
    stem = _stem(checkpoint, network)
    spec = JobSpec(
        job_id=request.name or ids.new_job_id("eval", stem),
        kind="eval",
        recipe=checkpoint.job.raw_spec["recipe"] if checkpoint.job is not None else network.name,
        study=said.study,
        description=said.description.strip() or describe(config),
        config=config.model_dump(mode="json"),
        resources=options.resources(),
        priority=options.priority,
        max_retries=options.max_retries,
        time_limit_s=options.time_limit_s,
        after=request.after,
    )
    return EvalPlan(
        spec=spec,
        config=config,
        overrides=tuple(overrides),
        stem=stem,
        evaluated_job=checkpoint.job.job_id if checkpoint.job is not None else "",
    )


def describe(config: EvalConfig) -> str:
    """Return what is evaluated on what, in a sentence."""
    where = getattr(config.data, "path", "")
    crops = {
        "centre": "centre crop",
        "flip": "centre crop and its mirror image",
        "ten": "ten crops",
    }
    return (
        f"Evaluation of {config.origin or config.weights} on {config.data.name}"
        + (f" {where}" if where else "")
        + f", {config.split}, {crops[config.crops]}, {config.images.size} pixels."
    )


def _of_job(checkpoint: ResolvedCheckpoint) -> dict[str, Any]:
    assert checkpoint.job is not None
    spec = checkpoint.job.raw_spec
    trained, resources = spec["config"], spec["resources"]
    data, images = legacy_images(trained)
    return {
        "model": trained["model"],
        "data": data,
        "images": images,
        "study": spec["study"],
        "job": {key: resources[key] for key in ("cpus_per_worker", "gpus_per_worker")},
    }


def _of_file(network: KnownNetwork) -> dict[str, Any]:
    document: dict[str, Any] = {"study": STUDY}
    if network.model is not None:
        document["model"] = network.model.model_dump(mode="json")
    if network.images is not None:
        document["images"] = network.images.model_dump(mode="json")
    return document


def _keys(overrides: Sequence[str]) -> set[str]:
    return {override.partition("=")[0].strip() for override in overrides}


def _as_overrides(request: EvalRequest) -> list[str]:
    given: dict[str, Any] = {
        "job.num_workers": request.workers,
        "job.priority": request.priority,
        **(request.options or {}),
    }
    return [f"{key}={value}" for key, value in given.items() if value is not None]


def _stem(checkpoint: ResolvedCheckpoint, network: KnownNetwork) -> str:
    """Return a name for what is evaluated: of the job's recipe, the network or the file."""
    if checkpoint.job is not None:
        return str(checkpoint.job.raw_spec["recipe"])
    name = network.name or Path(checkpoint.origin).name
    while Path(name).suffix in _WEIGHT_SUFFIXES:
        name = Path(name).stem
    return name or "weights"


def _check(config: EvalConfig, checkpoint: ResolvedCheckpoint, network: KnownNetwork) -> None:
    """Meet what no worker could put right: channels, positions, numbers of classes."""
    problems = []
    channels, classes = network.in_channels, network.num_classes
    if checkpoint.job is not None:
        trained = SOURCE_CONFIGS[checkpoint.job.raw_spec["config"]["data"]["name"]]
        channels, classes = trained.in_channels, trained.num_classes
        averaged = checkpoint.job.raw_spec["config"].get("ema") is not None
        if config.average == "ema" and not averaged:
            text = f"{checkpoint.job.job_id} kept no moving average of its weights"
            problems.append(Problem("average", text, "leave it out, or write average=model"))
    if channels is not None and channels != config.data.in_channels:
        text = f"the network takes images of {channels} channel{'s'[: channels > 1]}; those of "
        problems.append(Problem("data", f"{text}{config.data.name} have {config.data.in_channels}"))
    known = config.data.num_classes
    if classes is not None and known is not None and known != classes:
        text = f"the network tells {classes} classes apart; {config.data.name} has {known}"
        problems.append(Problem("data", text, number_hint(classes, known)))
    if config.classes is not None and classes not in (None, len(config.classes)):
        text = f"{len(config.classes)} names are given; the network has {classes} outputs"
        problems.append(Problem("classes", text))
    try:
        if config.model is not None:
            check_positions(config.model, config.images.size)
    except ValueError as error:
        problems.append(Problem("", str(error)))
    if problems:
        raise ConfigError(_SOURCE, problems)
