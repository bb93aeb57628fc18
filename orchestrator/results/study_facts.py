"""What a report says of a study besides its numbers: what was asked, where, when, by what code."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.job import PREFIX, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_PACKAGES = ("torch", "torchvision", "ray", "mlflow", "numpy")
_MOST_ENVIRONMENTS = 24


@dataclass(frozen=True)
class Environment:
    """What a training ran on.

    Attributes:
        machine: Processor or GPUs, number of cores.
        software: Python and the packages that compute.
    """

    machine: str
    software: str

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Environment":
        """Read what a driver has described of its node."""
        gpus = facts.get("gpus") or ()
        processor = facts.get("processor") or facts.get("machine", "")
        cpus = f"{facts.get('cpus')} CPU cores ({processor})"
        packages = facts.get("packages", {})
        versions = [f"{name} {packages[name]}" for name in _PACKAGES if name in packages]
        return cls(
            machine="; ".join([*map(str, gpus), cpus]),
            software=", ".join([f"Python {facts.get('python', '?')}", *versions]),
        )


@dataclass(frozen=True)
class StudyFacts:
    """A study as its jobs tell of it.

    Attributes:
        config: The resolved `AblationConfig`, as plain JSON.
        overrides: Keys that the study lays over its recipe, and their values.
        only: Patterns of the cells that it was cut down to; empty for all.
        evaluate: How trainings are evaluated; None takes their own last validation.
        is_final: Whether all that it asks for has ended.
        members: Job ids of trainings and evaluations -> state, cell by cell.
        commits: Of the trainings, `abc123456789` or `abc123456789 with uncommitted changes`.
        num_images: Images that the trainings were judged on; None while none has ended.
        workers: Such as `1 worker`.
        published: The rows that the trainings' recipes reproduce, as sentences.
        began, ended: Dates in UTC; `ended` of the last job of the study.
        ended_ms: The same in milliseconds since 1970; 0 while none has ended.
    """

    job_id: str
    run_id: str
    experiment_id: str
    experiment: str
    question: str
    recipe: str
    mode: str
    metric: str
    seeds: tuple[int, ...]
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]
    only: str
    evaluate: Mapping[str, Any] | None
    is_final: bool
    members: Mapping[str, str]
    commits: tuple[str, ...]
    num_images: int | None
    workers: str
    environments: tuple[Environment, ...]
    published: tuple[str, ...]
    user: str
    began: str
    ended: str
    ended_ms: int = 0


def study_facts(store: JobStore, parent: Job) -> StudyFacts:
    """Ask the store for what a study's report says besides the numbers.

    Args:
        parent: A job of kind `ablation`.
    """
    members = store.members(parent.job_id)
    trainings = [job for job in members if job.kind == "train"]
    spec = parent.raw_spec
    config = spec["config"]
    ends = [job.end_ms for job in members if job.end_ms is not None]
    return StudyFacts(
        job_id=parent.job_id,
        run_id=parent.run_id,
        experiment_id=parent.experiment_id,
        experiment=spec["study"],
        question=config["question"],
        recipe=config["recipe"],
        mode=config["mode"],
        metric=config["metric"],
        seeds=tuple(config["seeds"]),
        config=config,
        overrides=config.get("overrides", {}),
        only=parent.tags.get(PREFIX + "only", ""),
        evaluate=config.get("evaluate"),
        is_final=bool(members) and all(job.state.is_final for job in members),
        members={job.job_id: job.state.value for job in members},
        commits=_distinct(commit_text(job) for job in trainings),
        num_images=next(
            (n for job in trainings if isinstance(n := job.result.get("num_val_images"), int)),
            None,
        ),
        workers=" or ".join(_distinct(_workers(job) for job in trainings)),
        environments=_environments(store, trainings),
        published=_distinct(_published(job) for job in trainings),
        user=parent.tags.get("mlflow.user", ""),
        began=date(parent.start_ms),
        ended=date(max(ends)) if ends else "",
        ended_ms=max(ends, default=0),
    )


def date(time_ms: int) -> str:
    """Return a time as `2026-11-26 05:01 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time_ms / 1000))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))


def commit_text(job: Job) -> str:
    """Return the commit that a job was submitted at; empty outside of a checkout."""
    commit = job.tags.get("mlflow.source.git.commit", "")[:12]
    dirty = job.tags.get("mlflow.source.git.dirty") == "true"
    return f"{commit} with uncommitted changes" if commit and dirty else commit


def _workers(job: Job) -> str:
    count, resources = job.num_workers, job.raw_spec["resources"]
    each = f"{resources['cpus_per_worker']} CPU"
    if resources["gpus_per_worker"]:
        each = f"({each} and {resources['gpus_per_worker']} GPU)"
    return f"{count} worker{'s' if count > 1 else ''} of {each}"


def _published(job: Job) -> str:
    row = job.raw_spec.get("published")
    if not row:
        return ""
    words = ", ".join(filter(None, (row.get("model"), row.get("pooling"), row.get("lr_mode"))))
    top1 = f", top-1 {row['top1']:g} %" if row.get("top1") is not None else ""
    note = f" {row['note']}" if row.get("note") else ""
    return f"{row['table']}: {words}{top1}.{note}"


def _environments(store: JobStore, trainings: Sequence[Job]) -> tuple[Environment, ...]:
    """Return the distinct environments of one finished training of each config but seeds."""
    cells: dict[str, Job] = {}
    for job in trainings:
        if job.state is State.FINISHED:
            cells.setdefault(job.cell or job.job_id, job)
    found = []
    for job in list(cells.values())[:_MOST_ENVIRONMENTS]:
        try:
            found.append(Environment.of(json.loads(store.read_artifact(job, "environment.json"))))
        except (GcpctlError, ValueError):  # a job that ended too soon to describe it
            continue
    return tuple(dict.fromkeys(found))
