"""Studies in the queue: a study waits for its members, says how far they are, then reports.

The job of a study is its report. It needs a place in the queue like any job, but only once all
that it reports on is over; until then it holds nobody back.
"""

from collections.abc import Sequence

from orchestrator.jobs.job import (
    TAG_COUNTED,
    TAG_MEMBERS,
    TAG_REASON,
    TAG_SUBMITTED,
    Job,
    member_tag,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import QUEUE_PAGE, JobStore

_SAY_EVERY_MS = 2_000
_COUNT_EVERY_MS = 15_000
"""Between two counts in the store, which a queue of more than a page makes necessary."""
_SUBMIT_GRACE_MS = 60_000
_CUT_OFF = "not all of its jobs are recorded; submit the study again, it goes on where it was"
_UNFINISHED = " AND ".join(f"attributes.status != '{state}'" for state in State if state.is_final)


def due_studies(
    store: JobStore, studies: Sequence[Job], active: Sequence[Job], now_ms: int
) -> list[Job]:
    """Return the queued studies whose members are all over; say of the others how far they are.

    Args:
        store: The jobs.
        studies: Queued jobs of kind `ablation`.
        active: The active jobs that were just read, these among them.
        now_ms: The present time.
    """
    due = []
    for study in studies:
        if study.tags.get(TAG_SUBMITTED) != "true":
            # MLflow's clock, not ours, may have set the start: both are of this cluster.
            began_ms = max(study.start_ms, int(study.tags.get(TAG_COUNTED) or 0))
            if now_ms - began_ms > _SUBMIT_GRACE_MS and study.reason != _CUT_OFF:
                store.set_tags(study, {TAG_REASON: _CUT_OFF})
            continue
        own = member_tag(study.job_id)
        members = [job for job in active if own in job.tags]
        # Jobs far back in a long queue were not read: nothing is concluded without having asked.
        if members or _has_unfinished(store, study):
            _say_progress(store, study, members, active, now_ms)
        else:
            due.append(study)
    return due


def _has_unfinished(store: JobStore, study: Job) -> bool:
    return bool(store.search(f"{_of(study)} AND {_UNFINISHED}", limit=1))


def _say_progress(
    store: JobStore, study: Job, members: Sequence[Job], active: Sequence[Job], now_ms: int
) -> None:
    """Write how many members are done, where that has changed and was not written just now."""
    said_ms = int(study.tags.get(TAG_COUNTED) or 0)
    total = int(study.tags.get(TAG_MEMBERS) or 0)
    queued = sum(job.state is State.SCHEDULED for job in active)
    to_count = queued >= QUEUE_PAGE or total < max(len(members), 1)  # else all of them were read
    if now_ms - said_ms < (_COUNT_EVERY_MS if to_count and total else _SAY_EVERY_MS):
        return
    if to_count:
        everything = store.members(study.job_id)
        total, members = len(everything), [job for job in everything if not job.state.is_final]
    runs = sum(job.state is State.RUNNING and job.has_begun for job in members)
    reason = f"{total - len(members)} of {total} done, {runs} running"
    if to_count or reason != study.reason:
        tags = {TAG_COUNTED: str(now_ms), TAG_MEMBERS: str(total), TAG_REASON: reason}
        store.set_tags(study, tags)


def _of(study: Job) -> str:
    return f"tags.`{member_tag(study.job_id)}` LIKE '%'"
