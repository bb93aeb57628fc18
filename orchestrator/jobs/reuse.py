"""What of a study is there already: for each cell and seed the job whose result it may use.

Cells are found by the digest of their resolved config, so a training serves every study that asks
for the same one, whoever submitted it and in which study.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.jobs import ids
from orchestrator.jobs.errors import JobExistsError
from orchestrator.jobs.job import (
    DUPLICATE,
    PREFIX,
    STUDY,
    TAG_CHECKPOINT,
    TAG_CONFIG,
    TAG_KIND,
    TAG_SUBMITTED,
    Job,
    member_tag,
)
from orchestrator.jobs.plan import Plan
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.plan_study import StudyPlan, as_job, plan_evaluation
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, safe_text
from orchestrator.jobs.study import StudyCell
from orchestrator.jobs.study_parts import Found, Part, Slot
from workloads.worker.paths import JobPaths

TAG_FRESH = PREFIX + "fresh"
"""On a study: `true` if it was asked to reuse nothing."""

TAG_RECIPE = PREFIX + "recipe"
_MANY = 4
"""Trainings that are looked for one by one; for more, earlier submits are looked at first."""
_EARLIER = 4

_P = TypeVar("_P", Plan, EvalPlan)


def all_new(plan: StudyPlan, storage: Path) -> Found:
    """Return a study of which nothing is there."""
    return Found(None, _Matcher(plan, storage, "").slots({}, {}))


def look(
    store: JobStore, plan: StudyPlan, storage: Path, *, fresh: bool = False, named: bool = False
) -> Found:
    """Find what of a study is there.

    Args:
        storage: Where the cluster keeps checkpoints.
        fresh: Use nothing but what an earlier, unfinished `--fresh` submit of it recorded.
        named: The study's id was chosen: only a study of that name is the same one.

    Raises:
        JobExistsError: The chosen name is that of another job.
    """
    parent = _parent(store, plan, fresh=fresh, named=named)
    members = store.members(parent.job_id) if parent is not None else []
    group = parent.job_id if parent is not None else ""
    known = list(members)
    trainings = _by_config(known)
    if not fresh and len(_unserved(plan, trainings)) > _MANY:
        known = _united(known, _of_earlier_submits(store, plan, group))
        trainings = _by_config(known)
    if not fresh:
        for digest, jobs in store.with_config(_unserved(plan, trainings)).items():
            trainings[digest] = _united(trainings.get(digest, []), jobs)
    evaluations = _by(known, "eval", TAG_CHECKPOINT)
    matcher = _Matcher(plan, storage, group)
    slots = matcher.slots(trainings, evaluations)
    if not fresh and plan.config.evaluate is not None:
        asked = [_checkpoint(slot) for slot in slots if _lacks_evaluation(slot)]
        for name, jobs in store.with_tag(TAG_CHECKPOINT, asked).items():
            evaluations[name] = _united(evaluations.get(name, []), jobs)
        slots = matcher.slots(trainings, evaluations)
    if lost := {slot.training.job_id for slot in slots if _is_lost(slot, storage)}:
        kept = {d: [j for j in jobs if j.job_id not in lost] for d, jobs in trainings.items()}
        slots = matcher.slots(kept, evaluations)
    chosen = {part.job_id for slot in slots for part in slot.parts()}
    left = tuple(job for job in members if job.job_id not in chosen)
    return Found(parent, slots, left)


def _parent(store: JobStore, plan: StudyPlan, *, fresh: bool, named: bool) -> Job | None:
    """Return the newest job of this very study."""
    digest = plan.config_sha256
    same = [j for j in store.with_config([digest]).get(digest, ()) if j.kind == STUDY]
    same = [job for job in same if job.phase != DUPLICATE]
    if fresh:  # one that was cut off is completed; any other stays as it is
        same = [
            job
            for job in same
            if job.tags.get(TAG_FRESH) == "true" and job.tags.get(TAG_SUBMITTED) != "true"
        ]
    if named:
        same = [job for job in same if job.job_id == plan.job_id]
        taken = store.find_exact(plan.job_id) if not same else None
        if taken is not None:
            raise JobExistsError(
                f"there is a job {plan.job_id!r} already; it is {taken.state} and another study",
                f"choose another --name, or look at it: gcpctl status {plan.job_id}",
            )
    return same[-1] if same else None


class _Matcher:
    """Puts jobs to the cells and seeds of a study; what is planned is planned once."""

    def __init__(self, plan: StudyPlan, storage: Path, group: str) -> None:
        self._plan, self._storage, self._group = plan, storage, group
        self._owner = group or plan.job_id
        self._new: dict[tuple[str, int], Plan] = {}
        self._judged: dict[str, EvalPlan] = {}

    def slots(
        self, trainings: Mapping[str, Sequence[Job]], evaluations: Mapping[str, Sequence[Job]]
    ) -> tuple[Slot, ...]:
        """Return every cell and seed with the best that there is of it.

        Args:
            trainings: By the digest of their config.
            evaluations: By what they judge, such as `train-x7:last`.
        """
        found = []
        for planned, seed, plan in self._plan.trainings():
            there = trainings.get(plan.config_sha256, ())
            training = _choose(plan, (j for j in there if _same_gang(j, plan)), self._group)
            if training.job is None:
                training = replace(training, plan=self._new_training(planned.cell, seed, plan))
            evaluation = None
            if self._plan.config.evaluate is not None:
                judged = self._evaluation(planned.cell, training)
                jobs = evaluations.get(judged.config.origin, ())
                alike = (job for job in jobs if _same_evaluation(job, judged, training.job))
                evaluation = _choose(judged, alike, self._group)
            found.append(Slot(planned.cell, seed, training, evaluation))
        return tuple(found)

    def _new_training(self, cell: StudyCell, seed: int, plan: Plan) -> Plan:
        key = (cell.name, seed)
        if key not in self._new:
            job_id = ids.new_member_id(self._plan.name, cell.name, seed, kind="train")
            self._new[key] = _named(plan, job_id, self._owner)
        return self._new[key]

    def _evaluation(self, cell: StudyCell, training: Part[Plan]) -> EvalPlan:
        job = training.job or as_job(training.plan)
        if job.job_id not in self._judged:
            plan = plan_evaluation(self._plan, cell, job, self._storage)
            self._judged[job.job_id] = _named(plan, plan.spec.job_id, self._owner)
        return self._judged[job.job_id]


def _choose(plan: _P, candidates: Iterable[Job], group: str) -> Part[_P]:
    """Return the best of equal jobs: what the study has, what is finished, what is under way."""
    jobs = [job for job in candidates if job.phase != DUPLICATE]
    mine = member_tag(group)
    usable = [job for job in jobs if _is_usable(job)]
    if usable:
        best = max(usable, key=lambda job: (mine in job.tags, job.state is State.FINISHED))
        return Part(plan, best, "use")
    own = [job for job in jobs if group and job.group == group]
    if own:
        return Part(plan, own[-1], "retry" if own[-1].state.is_final else "use")
    return Part(plan, None, "new")


def _named(plan: _P, job_id: str, group: str) -> _P:
    return replace(plan, spec=plan.spec.model_copy(update={"job_id": job_id, "group": group}))


def _of_earlier_submits(store: JobStore, plan: StudyPlan, group: str) -> list[Job]:
    """Return the members of studies of this name: one request each instead of one for each cell."""
    where = f"tags.`{TAG_KIND}` = '{STUDY}' AND tags.`{TAG_RECIPE}` = '{safe_text(plan.name)}'"
    parents = [job for job in store.search(where, limit=_EARLIER) if job.job_id != group]
    return [job for parent in parents for job in store.members(parent.job_id)]


def _unserved(plan: StudyPlan, trainings: Mapping[str, Sequence[Job]]) -> set[str]:
    """Return the digests of the trainings that nothing is known to serve as."""
    wanted = {training.config_sha256: training for _, _, training in plan.trainings()}
    return {
        digest
        for digest, training in wanted.items()
        if not any(_is_usable(j) and _same_gang(j, training) for j in trainings.get(digest, ()))
    }


def _by_config(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    return _by(jobs, "train", TAG_CONFIG)


def _by(jobs: Iterable[Job], kind: str, tag: str) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        if job.kind == kind:
            found.setdefault(job.tags.get(tag, ""), []).append(job)
    return found


def _united(known: Sequence[Job], more: Sequence[Job]) -> list[Job]:
    return list({job.run_id: job for job in (*known, *more)}.values())


def _is_usable(job: Job) -> bool:
    """Whether a job is finished or will be; one that was asked to stop will not."""
    return job.state is State.FINISHED or not (job.state.is_final or job.stop_requested)


def _same_gang(job: Job, plan: Plan) -> bool:
    """Whether a job trains what the plan asks for: as many workers and threads, like devices."""
    theirs, ours = job.raw_spec["resources"], plan.spec.resources
    return job.kind == "train" and (
        theirs["num_workers"],
        theirs.get("min_workers") or theirs["num_workers"],
        theirs.get("cpus_per_worker", 1),
        theirs.get("gpus_per_worker", 0),
    ) == (ours.num_workers, ours.least_workers, ours.cpus_per_worker, ours.gpus_per_worker)


def _same_evaluation(job: Job, plan: EvalPlan, training: Job | None) -> bool:
    """Whether a job judges the same weights in the same way.

    The place of the weights is left out: a checkpoint that was there at submit is named by its
    step, one to come by its job. What was submitted before the training had ended, and did not
    wait for that, has judged the last or best checkpoint of that moment.
    """
    if training is None:
        return False
    ended = training.end_ms is not None and job.start_ms >= training.end_ms
    if not ended and training.job_id not in job.raw_spec.get("after", ()):
        return False

    def way(config: Mapping[str, object]) -> dict[str, object]:
        return {key: value for key, value in config.items() if key != "weights"}

    return job.kind == "eval" and way(job.raw_spec["config"]) == way(plan.spec.config)


def _lacks_evaluation(slot: Slot) -> bool:
    return (
        slot.training.job is not None
        and slot.evaluation is not None
        and slot.evaluation.action != "use"
    )


def _checkpoint(slot: Slot) -> str:
    assert slot.evaluation is not None
    return slot.evaluation.plan.config.origin


def _is_lost(slot: Slot, storage: Path) -> bool:
    """Whether a training is still to be evaluated whose checkpoints were deleted."""
    job = slot.training.job
    if job is None or job.state is not State.FINISHED or not _lacks_evaluation(slot):
        return False
    return storage.is_dir() and not JobPaths(storage / job.job_id).checkpoints.is_dir()
