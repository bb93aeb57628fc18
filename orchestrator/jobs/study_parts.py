"""The parts of a study: for each cell and seed a training and its evaluation, there or to come."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from orchestrator.jobs.job import TAG_SUBMITTED, Job, member_tag
from orchestrator.jobs.plan import Plan
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.study import StudyCell

_P = TypeVar("_P", Plan, EvalPlan)


@dataclass(frozen=True)
class Part(Generic[_P]):
    """A training or an evaluation of a study.

    Attributes:
        plan: With the id that the job has, or will have.
        job: The job that is there; None if it is still to be recorded.
        action: `use` leaves the job alone, `retry` queues it again, `new` records it.
    """

    plan: _P
    job: Job | None
    action: Literal["use", "retry", "new"]

    @property
    def job_id(self) -> str:
        """The job's id, also of one to come."""
        return self.plan.spec.job_id if self.job is None else self.job.job_id


@dataclass(frozen=True)
class Slot:
    """One cell with one seed."""

    cell: StudyCell
    seed: int
    training: Part[Plan]
    evaluation: Part[EvalPlan] | None

    def parts(self) -> Iterator[Part[Plan] | Part[EvalPlan]]:
        """Yield the training, then its evaluation if there is to be one."""
        yield self.training
        if self.evaluation is not None:
            yield self.evaluation


@dataclass(frozen=True)
class Found:
    """A study as it stands.

    Attributes:
        parent: The job of this very study, had it been submitted before.
        slots: In the order they are to run.
        left_behind: Members of it that another job now stands for.
    """

    parent: Job | None
    slots: tuple[Slot, ...]
    left_behind: tuple[Job, ...] = ()

    @property
    def group(self) -> str:
        """Job id of the parent; empty if there is none yet."""
        return "" if self.parent is None else self.parent.job_id

    def parts(self) -> Iterator[Part[Plan] | Part[EvalPlan]]:
        """Yield all trainings and evaluations, in the order they are to run."""
        for slot in self.slots:
            yield from slot.parts()

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked it or a job of it to stop, and that has not happened yet."""
        own = [part.job for part in self.parts() if part.job and part.job.group == self.group]
        jobs = [self.parent, *own] if self.parent is not None else []
        return any(job.stop_requested and not job.state.is_final for job in jobs if job)

    @property
    def is_whole(self) -> bool:
        """Whether the study was recorded to its end and nothing of it is to be done again."""
        if self.parent is None or self.parent.tags.get(TAG_SUBMITTED) != "true":
            return False
        mine = member_tag(self.parent.job_id)
        used = all(p.action == "use" and p.job and mine in p.job.tags for p in self.parts())
        return used and not self.left_behind


def reused(found: Found) -> Iterator[tuple[Slot, Job]]:
    """Yield the trainings that were made for something else, with what they serve as here."""
    for slot in found.slots:
        job = slot.training.job
        if job is not None and (not found.group or job.group != found.group):
            yield slot, job
