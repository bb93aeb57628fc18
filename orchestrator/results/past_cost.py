"""How long a training will take, from trainings of the past."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from orchestrator.jobs.job import TAG_KIND, Job
from orchestrator.jobs.plan import Plan
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_RECENT = 200
_EQUAL = ("data", "images", "augment", "steps_per_epoch", "global_batch_size", "compute")
"""Sections of the config that must be equal for two trainings to be as fast as each other."""
_GANG = ("num_workers", "cpus_per_worker", "gpus_per_worker")


@dataclass(frozen=True)
class Estimate:
    """How long one training takes, starting and waiting aside.

    Attributes:
        basis: `equal` if a training of the same network was measured; `similar` if only one on
            the same data with the same backbone, behind which another head stood.
    """

    seconds: float
    basis: Literal["equal", "similar"]


class PastTrainings:
    """Finished trainings as a measure of those to come."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        measured = ((job, _seconds_per_epoch(job)) for job in jobs)
        self._measured = [(job, seconds) for job, seconds in measured if seconds is not None]

    @classmethod
    def recent(cls, store: JobStore) -> "PastTrainings":
        """Return the newest ones of a cluster."""
        where = f"attributes.status = '{State.FINISHED}' AND tags.`{TAG_KIND}` = 'train'"
        return cls(store.search(where, limit=_RECENT))

    def estimate(self, plan: Plan) -> Estimate | None:
        """Return how long a training will take; None if nothing like it was measured."""
        config, resources = plan.spec.config, plan.spec.resources.model_dump()
        similar = [
            (job.raw_spec["config"], seconds)
            for job, seconds in self._measured
            if _is_similar(job.raw_spec, config, resources)
        ]
        equal = [seconds for theirs, seconds in similar if theirs["model"] == config["model"]]
        some = equal or [seconds for _, seconds in similar]
        if not some:
            return None
        return Estimate(median(some) * plan.config.epochs, "equal" if equal else "similar")


def _is_similar(spec: dict[str, Any], config: dict[str, Any], resources: dict[str, Any]) -> bool:
    theirs = spec["config"]
    return (
        all(theirs.get(key) == config.get(key) for key in _EQUAL)
        and theirs["model"]["backbone"] == config["model"]["backbone"]
        and all(spec["resources"].get(key) == resources[key] for key in _GANG)
    )


def _seconds_per_epoch(job: Job) -> float | None:
    """Return what an epoch took with its validation; the newest one where that is all we know."""
    total, epochs = job.metrics.get("time/train_s"), job.epoch
    if total is not None and epochs > 0:
        return total / epochs
    return job.metrics.get("time/epoch_s")
