"""Stopping and retrying studies."""

from collections import Counter

import pytest

from orchestrator.jobs import groups
from orchestrator.jobs.errors import ConflictError
from orchestrator.jobs.job import STUDY, TAG_STOP, TAG_SUBMITTED
from orchestrator.jobs.states import State
from tests.fakes import Crash
from tests.studies import Store, actions, plan, submit


def stopped(store: Store) -> set[str]:
    return {job.job_id for job in store._jobs() if job.tags.get(TAG_STOP)}


def test_stop_ends_the_study_and_the_unfinished_jobs_made_for_it():
    store = Store()
    parent = submit(store, plan())
    done = store.members(parent.job_id)[0]
    store.end(done.job_id)
    stopping = groups.stop_study(store, parent)
    assert stopping.asked[0].job_id == parent.job_id
    own = {job.job_id for job in store.members(parent.job_id)} - {done.job_id}
    assert stopped(store) == own | {parent.job_id}
    kinds = [job.kind for job in stopping.asked[1:]]
    assert kinds == sorted(kinds)  # evaluations first


def test_stop_leaves_what_others_wait_for():
    store = Store()
    first = submit(store, plan())
    second = submit(store, plan("seeds=[0]", "metric=loss"))
    stopping = groups.stop_study(store, second)
    assert stopped(store) == {second.job_id}
    assert stopping.spared == ()
    stopping = groups.stop_study(store, first)  # the second has been told, and has not ended yet
    assert len(stopping.spared) == 6
    assert len(stopped(store)) == 2 + 6
    store.end(second.job_id, State.KILLED)
    assert groups.stop_study(store, first).spared == ()
    assert len(stopped(store)) == 2 + 12


def test_what_was_left_to_another_study_stops_with_that():
    store = Store()
    first = submit(store, plan())
    second = submit(store, plan("seeds=[0]", "metric=loss"))
    third = submit(store, plan("seeds=[0]", "metric=loss", "question=which?"))
    groups.stop_study(store, first)
    store.end(first.job_id, State.KILLED)
    groups.stop_study(store, second)
    assert len(stopped(store)) == 1 + 6 + 1  # the third waits for what the first left
    store.end(second.job_id, State.KILLED)
    stopping = groups.stop_study(store, third)
    assert (len(stopping.asked), stopping.spared) == (1 + 6, ())
    assert len(stopped(store)) == 3 + 12


def test_what_was_asked_to_stop_is_of_no_use_to_others_and_resumed_once_it_has_ended():
    store = Store()
    first = submit(store, plan())
    done = store.members(first.job_id)[0]
    store.end(done.job_id)
    groups.stop_study(store, first)
    assert actions(store, plan("metric=loss")) == {"use": 1, "new": 11}
    with pytest.raises(ConflictError, match="being stopped"):
        submit(store, plan())
    for job in [first, *store.members(first.job_id)]:
        if job.job_id != done.job_id:
            store.end(job.job_id, State.KILLED)
    again = submit(store, plan())
    assert again.run_id == first.run_id
    assert stopped(store) == set()
    assert Counter(job.state for job in store.members(first.job_id)) == {
        State.SCHEDULED: 11, State.FINISHED: 1,
    }  # fmt: skip


def test_retry_queues_what_failed_and_the_report():
    store = Store()
    parent = submit(store, plan())
    with pytest.raises(ConflictError, match="failed or was stopped"):
        groups.retry_study(store, parent)
    store.end_all()
    with pytest.raises(ConflictError):
        groups.retry_study(store, store.get(parent.run_id))
    failed = store.members(parent.job_id)[:2]
    for job in failed:
        store.end(job.job_id, State.KILLED)
    queued, foreign = groups.retry_study(store, store.get(parent.run_id))
    assert [job.job_id for job in queued] == [*(job.job_id for job in failed), parent.job_id]
    assert foreign == []
    assert {job.state for job in store._jobs()} == {State.FINISHED, State.SCHEDULED}
    assert store.get(parent.run_id).state is State.SCHEDULED
    assert store.get(parent.run_id).tags[TAG_SUBMITTED] == "true"


def test_retry_reports_anew_on_what_ran_again_after_the_report():
    store = Store()
    parent = submit(store, plan())
    store.end(store.members(parent.job_id)[0].job_id, State.FAILED)
    store.end_all()
    failed = store.members(parent.job_id)[0]
    groups.requeue(store, failed)  # `gcpctl retry` of that job alone
    store.end(failed.job_id)
    queued, _ = groups.retry_study(store, store.get(parent.run_id))
    assert [job.job_id for job in queued] == [parent.job_id]


def test_retry_of_a_stopped_study_leaves_the_jobs_of_others():
    store = Store()
    first = submit(store, plan())
    second = submit(store, plan("seeds=[0,1,2]"))
    for job in store.members(second.job_id):
        store.end(job.job_id, State.KILLED)
    store.end(second.job_id, State.KILLED)
    queued, foreign = groups.retry_study(store, store.get(second.run_id))
    assert {job.group for job in queued[:-1]} == {second.job_id}
    assert {job.group for job in foreign} == {first.job_id}
    assert (len(queued), len(foreign)) == (7, 12)


def test_retry_does_not_revive_half_a_study():
    store = Store()
    store.crash_at = 10
    with pytest.raises(Crash):
        submit(store, plan())
    store.crash_at = None
    (parent,) = [job for job in store._jobs() if job.kind == STUDY]
    with pytest.raises(ConflictError, match="cut off"):
        groups.retry_study(store, parent)
