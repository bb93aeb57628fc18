"""Record a study: its parent, the jobs that are missing, and which jobs it uses.

The terminal may die between any two requests; the same command then completes the study. The
parent comes first and is marked as `TAG_SUBMITTED` last; before that the controller does not let
it conclude. Whatever was recorded in between is found again by the digest of its config.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from filelock import FileLock, Timeout

from cluster.profiles import Profile
from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.groups import is_outdated, requeue
from orchestrator.jobs.job import (
    PREFIX,
    TAG_BASELINE,
    TAG_BASELINE_CELL,
    TAG_CELL,
    TAG_CONFIG,
    TAG_COUNTED,
    TAG_GROUP,
    TAG_PARENT,
    TAG_PHASE,
    TAG_REASON,
    TAG_SUBMITTED,
    Job,
    member_tag,
)
from orchestrator.jobs.plan import Plan
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.plan_study import StudyPlan
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.reuse import TAG_FRESH
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, now_ms
from orchestrator.jobs.study_file import as_override
from orchestrator.jobs.study_parts import Found, Part, Slot
from orchestrator.jobs.submit import create_once, params_of, spec_tags, tags_of
from workloads.config.document import dump_document

TAG_ONLY = PREFIX + "only"
"""On a study: the patterns of `--only`, if not all of its cells were asked for."""
_SUBMITTING, _WAITING = "submitting", "waiting"
_NOTE_CELLS = 40
_NOTE_CHARACTERS = 4000
"""Of the table of cells in a study's note; it shares a tag of 8000 with question and command."""


@contextlib.contextmanager
def one_at_a_time(profile: Profile, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of submitting studies, from the look at what is there to the last job of it.

    Two terminals that both find no such study would record it twice. Only an embedded cluster has
    a place for the lock; on another, they have to wait for each other by themselves.

    Args:
        say: Told once if another terminal has to be waited for.
    """
    if profile.nudge_path is None:
        yield
        return
    lock = FileLock(profile.nudge_path.with_name("studies.lock"), mode=0o600)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        say("another gcpctl is submitting a study; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class StudyRecorder:
    """Writes one study into the store.

    Args:
        found: What of it is there, by `reuse.look` on the same store.
        cluster: Name of the profile it is submitted to.
        fresh: It was asked to reuse nothing.
    """

    def __init__(
        self,
        store: JobStore,
        plan: StudyPlan,
        found: Found,
        provenance: Provenance,
        *,
        cluster: str,
        fresh: bool = False,
    ) -> None:
        self._store, self._plan, self._found = store, plan, found
        self._provenance, self._cluster, self._fresh = provenance, cluster, fresh

    @property
    def has_work(self) -> bool:
        """Whether anything is to be written."""
        parent = self._found.parent
        if parent is None or not self._found.is_whole:
            return True
        return is_outdated(parent, [part.job for part in self._found.parts() if part.job])

    def record(self) -> Job:
        """Record what is missing and return the parent; of a whole study nothing is written.

        Raises:
            ConflictError: Its report is being written at this moment, or it is being stopped.
            UnreachableError: The tracking server does not answer; the same command goes on.
        """
        parent = self._found.parent
        if parent is not None and self._found.is_stopping:
            raise ConflictError(
                f"{parent.job_id} is being stopped", "submit it again when it has ended"
            )
        if parent is not None and not self.has_work:
            return parent
        was_cut_off = parent is not None and parent.tags.get(TAG_SUBMITTED) != "true"
        parent = self._new_parent() if parent is None else self._reopened(parent)
        written = [
            (job, part.plan)
            for slot in self._found.slots
            for part in slot.parts()
            if (job := self._settle(parent, slot, part, again=was_cut_off)) is not None
        ]
        for job, plan in written:
            self._attach(job, plan)
        for job in self._found.left_behind:
            self._store.delete_tag(job, member_tag(parent.job_id))
        done = {TAG_SUBMITTED: "true", TAG_PHASE: _WAITING, TAG_REASON: ""}
        self._store.set_tags(parent, done)
        return self._store.get(parent.run_id)

    # -- the parent ---------------------------------------------------------------------------

    def _new_parent(self) -> Job:
        spec = self._plan.spec
        experiment = self._store.experiment_id(spec.study)
        tags = spec_tags(spec, self._provenance, cluster=self._cluster) | {
            TAG_CONFIG: self._plan.config_sha256,
            TAG_PHASE: _SUBMITTING,
            TAG_BASELINE_CELL: self._plan.baseline.cell.name,
            PREFIX + "overrides": " ".join(self._plan.overrides),
            "mlflow.note.content": self._parent_note(),
        }
        if self._fresh:
            tags[TAG_FRESH] = "true"
        if self._plan.only:
            tags[TAG_ONLY] = " ".join(self._plan.only)
        parent = create_once(self._store, spec.job_id, experiment, tags)
        provenance = self._provenance
        files = {
            "study.yaml": dump_document(spec.config),
            "command.txt": provenance.command + "\n",
            "git.diff": provenance.diff + "\n" if provenance.diff else "",
        }
        for name, text in files.items():
            if text:
                self._store.put_artifact(parent, name, text.encode())
        config = self._plan.config
        said = config.model_dump(mode="json", include={"recipe", "mode", "seeds", "metric"})
        self._store.log_params(parent, said | {"cells": len(self._plan.cells)})
        return parent

    def _reopened(self, parent: Job) -> Job:
        """Keep the parent from concluding until its jobs are all recorded again."""
        # The time keeps the controller from taking it for a submit that was cut off long ago.
        tags = {TAG_SUBMITTED: "", TAG_COUNTED: str(now_ms())}
        if parent.state.is_final:
            requeue(self._store, parent, phase=_SUBMITTING, tags=tags)
        else:
            self._store.set_tags(parent, {TAG_PHASE: _SUBMITTING, **tags})
        fresh = self._store.get(parent.run_id)
        if fresh.state is State.RUNNING and fresh.attempt > 0:
            self._store.set_tags(parent, {TAG_SUBMITTED: "true", TAG_PHASE: parent.phase})
            raise ConflictError(
                f"{parent.job_id} is writing its report", "submit it again when it has ended"
            )
        return fresh

    def _parent_note(self) -> str:
        plan = self._plan
        lines = [f"**{plan.config.question}**", "", "| cell | what differs |", "|---|---|"]
        room = _NOTE_CHARACTERS
        for place, planned in enumerate(plan.cells):
            cell = planned.cell
            said = "baseline" if cell.is_baseline else _differences(cell.differs)
            line = f"| {cell.name} | {said} |"
            room -= len(line)
            if place == _NOTE_CELLS or room < 0:
                lines.append(f"| and {len(plan.cells) - place} more | |")
                break
            lines.append(line)
        seeds = ", ".join(map(str, plan.config.seeds))
        recipe, metric = plan.config.recipe, plan.config.metric
        lines += ["", f"Recipe `{recipe}`, seeds {seeds}, compared by {metric}."]
        return "\n".join([*lines, "", f"`{self._provenance.command}`"])

    # -- its jobs -----------------------------------------------------------------------------

    def _settle(
        self, parent: Job, slot: Slot, part: Part[Plan] | Part[EvalPlan], *, again: bool
    ) -> Job | None:
        """Record, queue again or mark one job; return it if what belongs to it is to be stored."""
        mine = member_tag(parent.job_id)
        if part.job is None:
            tags = tags_of(part.plan, self._provenance, cluster=self._cluster)
            tags |= self._child_tags(parent, slot, tags["mlflow.note.content"])
            experiment = parent.experiment_id
            return create_once(self._store, part.plan.spec.job_id, experiment, tags)
        if part.action == "retry":
            requeue(self._store, part.job)
        if mine not in part.job.tags:
            self._store.set_tags(part.job, {mine: slot.cell.name})
        return part.job if again and part.job.group == parent.job_id else None

    def _child_tags(self, parent: Job, slot: Slot, note: str) -> dict[str, str]:
        title = f"**{slot.cell.name}**, seed {slot.seed}, of `{parent.job_id}`"
        return {
            TAG_PARENT: parent.run_id,
            TAG_GROUP: parent.job_id,
            TAG_CELL: slot.cell.name,
            member_tag(parent.job_id): slot.cell.name,
            "mlflow.note.content": f"{title}\n\n{note}",
            **({TAG_BASELINE: "true"} if slot.cell.is_baseline else {}),
        }

    def _attach(self, job: Job, plan: Plan | EvalPlan) -> None:
        """Store what belongs to a job besides its tags; command and diff are with the parent."""
        self._store.log_params(job, params_of(plan))
        if isinstance(plan, Plan):  # of an evaluation the parameters say it all
            config = dump_document(plan.spec.config)
            self._store.put_artifact(job, "config.yaml", config.encode())


def _differences(differs: Mapping[str, Any]) -> str:
    return ", ".join(f"`{as_override(key, value)}`" for key, value in differs.items())
