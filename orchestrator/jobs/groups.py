"""Stop and retry a study: what is asked of the parent is asked of the jobs made for it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.job import (
    STUDY,
    TAG_LAUNCHED,
    TAG_NOT_BEFORE,
    TAG_QUEUE_KEY,
    TAG_RETRIES,
    TAG_STOP,
    TAG_SUBMITTED,
    Job,
    member_tag,
    queue_key,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, now_ms

_MEMBER = member_tag("")


@dataclass(frozen=True)
class Stopping:
    """What was asked to stop.

    Attributes:
        asked: The study's job, if it had not ended, then jobs of it.
        spared: Jobs of it that another study waits for.
    """

    asked: tuple[Job, ...]
    spared: tuple[Job, ...]


def stop_study(store: JobStore, study: Job) -> Stopping:
    """Ask a study and the unfinished jobs made for it to stop.

    Jobs that it only shares belong to others, and its own that another study waits for are left
    to that; so it stops those as well that were left to it.
    """
    members = [job for job in store.members(study.job_id) if not job.state.is_final]
    others = _unfinished(store, {group for job in members for group in _other_groups(job, study)})
    own = [
        job
        for job in members
        if job.group == study.job_id or (job.group and not others & _other_groups(job, study))
    ]
    spared = [job for job in own if others & _other_groups(job, study)]
    asked = [] if study.state.is_final else [study]
    # The study first, or it would take the end of its jobs for the end of the work; evaluations
    # before trainings, or they would be refused instead of stopped.
    asked += [job for job in own if job.kind == "eval" and job not in spared]
    asked += [job for job in own if job.kind != "eval" and job not in spared]
    for job in asked:
        store.set_tags(job, {TAG_STOP: str(now_ms())})
    return Stopping(tuple(asked), tuple(spared))


def retry_study(store: JobStore, study: Job) -> tuple[list[Job], list[Job]]:
    """Queue the failed and stopped jobs of a study again, and the study, which will report anew.

    Returns:
        What was queued again; and what failed, is used by the study and belongs to others.

    Raises:
        ConflictError: There is nothing to retry, its report is being written just now, or it was
            never recorded to its end.
    """
    if study.tags.get(TAG_SUBMITTED) != "true":
        raise ConflictError(
            f"the submit of {study.job_id} was cut off",
            "submit the study again: the same command completes it",
        )
    members = store.members(study.job_id)
    ended = [job for job in members if job.state in (State.FAILED, State.KILLED)]
    own = [job for job in ended if job.group == study.job_id]
    foreign = [job for job in ended if job.group != study.job_id]
    if study.state is State.RUNNING and own:
        raise ConflictError(f"{study.job_id} is writing its report", "try again when it has ended")
    if not own and not is_outdated(study, members):
        hint = "" if not foreign else "submit the study again, to train anew what others stopped"
        raise ConflictError(f"no job of {study.job_id} failed or was stopped", hint)
    for job in own:
        requeue(store, job)
    if study.state.is_final:
        requeue(store, study)
        own.append(study)
    return own, foreign


def is_outdated(study: Job, jobs: Iterable[Job]) -> bool:
    """Whether a study has ended and does not tell of all that its jobs have found."""
    if study.state is not State.FINISHED:
        return study.state.is_final
    end_ms = study.end_ms or 0
    return any(not job.state.is_final or (job.end_ms or 0) > end_ms for job in jobs)


def requeue(
    store: JobStore, job: Job, *, phase: str = "queued", tags: Mapping[str, str] = {}
) -> None:
    """Queue an ended job again: the next attempt resumes, and its retries are counted afresh."""
    store.queue_again(
        job,
        phase=phase,
        tags={
            TAG_STOP: "",
            TAG_NOT_BEFORE: "0",
            TAG_LAUNCHED: "0",
            TAG_RETRIES: json.dumps({"used": 0, "epoch": job.epoch}),
            TAG_QUEUE_KEY: queue_key(job.priority, now_ms()),
        }
        | dict(tags),
    )


def _other_groups(job: Job, study: Job) -> set[str]:
    """Return the other studies that use a job's result, and that it was made for."""
    groups = {tag.removeprefix(_MEMBER) for tag in job.tags if tag.startswith(_MEMBER)}
    return (groups | {job.group}) - {study.job_id, ""}


def _unfinished(store: JobStore, groups: Iterable[str]) -> set[str]:
    """Return those of some studies that have not ended."""
    found = {group: store.find_exact(group) for group in sorted(groups)}
    return {
        group
        for group, job in found.items()
        if job is not None and job.kind == STUDY and not job.state.is_final
    }
