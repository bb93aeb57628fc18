"""Recording studies: what is reused, what runs, and a terminal that dies at any request."""

import threading
from collections import Counter
from dataclasses import replace

import pytest

from cluster.profiles import Profile
from orchestrator.cli.commands.submit_ablation import has_other_pace
from orchestrator.jobs.checkpoints import ResolvedCheckpoint
from orchestrator.jobs.errors import ConflictError, JobExistsError
from orchestrator.jobs.job import (
    STUDY,
    TAG_BASELINE_CELL,
    TAG_CHECKPOINT,
    TAG_CONFIG,
    TAG_PARENT,
    TAG_QUEUE_KEY,
    TAG_SUBMITTED,
    Job,
    member_tag,
)
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_eval import EvalRequest, KnownNetwork, plan_eval
from orchestrator.jobs.plan_study import StudyRequest, plan_study
from orchestrator.jobs.reuse import all_new, look
from orchestrator.jobs.states import State
from orchestrator.jobs.study import expand
from orchestrator.jobs.study_parts import reused
from orchestrator.jobs.submit import record
from orchestrator.jobs.submit_study import one_at_a_time
from tests.fakes import Crash
from tests.studies import PROVENANCE, STORAGE, Store, actions, plan, submit
from workloads.config.ablation import AblationConfig


def submitted_by_hand(store: Store) -> Job:
    request = Request(name="by-hand", seed=1)
    by_hand = plan_train(plan().config.recipe, ["model.head.pooling=cov"], request)
    return record(store, by_hand, PROVENANCE, cluster="lab")


def test_a_study_is_a_parent_and_a_job_for_each_training_and_evaluation():
    store = Store()
    parent = submit(store, plan())
    assert (parent.state, parent.phase, parent.tags[TAG_SUBMITTED]) == (
        State.SCHEDULED, "waiting", "true",
    )  # fmt: skip
    assert parent.tags[TAG_BASELINE_CELL] == "pooling=gap"
    assert parent.spec.config["factors"]["pooling"]["baseline"] == "gap"
    jobs = sorted(store.members(parent.job_id), key=lambda job: job.tags[TAG_QUEUE_KEY])
    assert [job.kind for job in jobs] == ["train", "eval"] * 6
    cells = ["pooling=gap", "pooling=cov", "pooling=isqrt"]
    assert [job.cell for job in jobs[::2]] == cells * 2
    assert [job.seed for job in jobs[::2]] == [0, 0, 0, 1, 1, 1]
    for training, evaluation in zip(jobs[::2], jobs[1::2], strict=True):
        assert evaluation.spec.after == (training.job_id,)
        assert evaluation.tags[TAG_CHECKPOINT] == f"{training.job_id}:last"
        for job in (training, evaluation):
            assert job.group == job.spec.group == parent.job_id
            assert job.tags[TAG_PARENT] == parent.run_id
            assert job.tags[member_tag(parent.job_id)] == training.cell == job.cell
            assert (job.tags.get("gcpctl.baseline") == "true") == (job.cell == "pooling=gap")
            assert job.spec.pack == "cells"
            assert job.tags["mlflow.note.content"].startswith(f"**{job.cell}**, seed")
            assert store.runs[job.run_id]["params"]["job.num_workers"] == 1
            files = {"config.yaml"} if job is training else set()
            assert store.runs[job.run_id]["files"] == files


def test_the_note_of_a_large_study_fits_into_a_tag():
    factors = {
        f"factor{i}": {
            "levels": {"off": {}, "on": {f"data.{'x' * 40}.key{i}{j}": j for j in range(8)}}
        }
        for i in range(5)
    }
    config = AblationConfig(question="which?", recipe="r", factors=factors, mode="grid", seeds=(0,))
    first = plan().cells[0]
    cells = tuple(replace(first, cell=cell) for cell in expand(config))
    parent = submit(Store(), replace(plan(), cells=cells[:5], config=config))
    large = submit(Store(), replace(plan(), cells=cells, config=config))
    assert "more | |" not in parent.tags["mlflow.note.content"]
    assert len(large.tags["mlflow.note.content"]) < 5000
    assert large.tags["mlflow.note.content"].count("more | |") == 1


def test_the_same_study_again_writes_nothing_and_asks_little():
    store = Store()
    parent = submit(store, plan())
    writes, store.asked = store.writes, 0
    assert submit(store, plan()).run_id == parent.run_id
    assert (store.writes, store.asked) == (writes, 2)  # the parent and its members
    store.end_all()
    assert submit(store, plan()).state is State.FINISHED
    assert store.writes == writes


def test_of_two_terminals_the_second_waits_and_finds_the_study(tmp_path):
    token = tmp_path / "token"
    profile = Profile("here", "", "", "", token, tmp_path, nudge_path=tmp_path / "nudge")
    store, waits, found = Store(), threading.Event(), []

    def second() -> None:
        with one_at_a_time(profile, lambda _: waits.set()):
            found.append(submit(store, plan()))

    terminal = threading.Thread(target=second)
    with one_at_a_time(profile, pytest.fail):
        terminal.start()
        assert waits.wait(20)
        assert not found
        first = submit(store, plan())
    terminal.join(20)
    assert [job.run_id for job in found] == [first.run_id]


def test_a_cluster_elsewhere_has_no_lock(tmp_path):
    profile = Profile("lab", "", "", "", tmp_path / "token", tmp_path)
    with one_at_a_time(profile, pytest.fail), one_at_a_time(profile, pytest.fail):
        assert list(tmp_path.iterdir()) == []


def test_another_pace_is_the_same_study():
    store = Store()
    parent = submit(store, plan())
    assert submit(store, plan("max_parallel=1")).run_id == parent.run_id
    assert has_other_pace(plan("max_parallel=1"), look(store, plan(), STORAGE))
    urgent = StudyRequest(train=Request(priority=5))
    asked = plan_study("pooling", plan().overrides, urgent)
    assert asked.config_sha256 == plan().config_sha256
    assert has_other_pace(asked, look(store, asked, STORAGE))
    assert not has_other_pace(plan(), look(store, plan(), STORAGE))
    store.end_all()
    assert not has_other_pace(plan("max_parallel=1"), look(store, plan(), STORAGE))


def test_a_seed_and_a_level_more_run_only_what_is_missing():
    store = Store()
    first = submit(store, plan())
    store.end_all()
    levels = "factors.pooling.levels=[gap, cov, isqrt, epn]"
    larger = plan(levels, "seeds=[0,1,2]")
    assert actions(store, larger) == {"use": 12, "new": 2 * (2 + 3 + 1)}
    second = submit(store, larger)
    assert second.job_id != first.job_id
    members = store.members(second.job_id)
    assert len(members) == 4 * 3 * 2
    assert sum(job.group == first.job_id for job in members) == 12
    for job in members:  # what was made for the first study stays its own
        assert job.tags[TAG_PARENT] == (
            first.run_id if job.group == first.job_id else second.run_id
        )
    assert len(list(reused(look(store, plan(levels, "seeds=[0,1,2]"), STORAGE)))) == 6


def test_a_job_submitted_by_hand_serves_as_a_cell():
    store = Store()
    submitted_by_hand(store)
    parent = submit(store, plan())
    job = store.find_exact("by-hand")
    assert job.tags[member_tag(parent.job_id)] == "pooling=cov"
    assert (job.group, TAG_PARENT in job.tags) == ("", False)
    (evaluation,) = store.with_tag(TAG_CHECKPOINT, ["by-hand:last"])["by-hand:last"]
    assert evaluation.group == parent.job_id
    assert len(store.members(parent.job_id)) == 12


@pytest.mark.parametrize(
    "override", ["job.num_workers=2", "job.cpus_per_worker=2", "job.gpus_per_worker=1"]
)
def test_other_workers_threads_or_devices_are_another_result(override):
    store = Store()
    submit(store, plan())
    store.end_all()
    assert actions(store, plan(override)) == {"new": 12}


def test_a_result_with_other_workers_does_not_hide_one_that_serves():
    store = Store()
    submit(store, plan("job.num_workers=2"))
    submitted_by_hand(store)
    store.end_all()
    found = look(store, plan(), STORAGE)
    assert [job.job_id for _, job in reused(found)] == ["by-hand"]


@pytest.mark.parametrize(
    ("waits", "after_the_end", "action"),
    [(False, False, "new"), (False, True, "use"), (True, False, "use")],
)
def test_an_evaluation_of_an_unfinished_training_is_not_that_of_its_last_weights(
    waits, after_the_end, action
):
    store = Store()
    training = submitted_by_hand(store)
    if after_the_end:
        store.end("by-hand")
    # What `gcpctl submit eval --checkpoint by-hand:last` makes of the checkpoint that is there.
    weights = "/storage/by-hand/checkpoints/step-0000000010"
    checkpoint = ResolvedCheckpoint(weights, "by-hand:last", training)
    request = EvalRequest(name="judged", after=("by-hand",) if waits else ())
    judged = plan_eval(checkpoint, KnownNetwork(), [], request)
    record(store, judged, PROVENANCE, cluster="lab")
    store.end_all()
    (slot,) = [s for s in look(store, plan(), STORAGE).slots if s.training.job_id == "by-hand"]
    assert slot.evaluation is not None
    assert slot.evaluation.action == action


def test_running_trainings_of_others_are_shared():
    store = Store()
    submit(store, plan())
    assert actions(store, plan("metric=loss")) == {"use": 12}


def test_what_failed_is_retried_in_place_in_the_same_study():
    store = Store()
    parent = submit(store, plan())
    store.end_all()
    jobs = store.members(parent.job_id)
    training = next(job for job in jobs if job.kind == "train" and job.cell == "pooling=isqrt")
    evaluation = next(job for job in jobs if job.raw_spec["after"] == [training.job_id])
    store.end(training.job_id, State.FAILED)
    store.end(evaluation.job_id, State.KILLED)
    again = submit(store, plan())
    assert again.run_id == parent.run_id
    assert (again.state, again.tags[TAG_SUBMITTED]) == (State.SCHEDULED, "true")
    states = Counter(job.state for job in store.members(parent.job_id))
    assert states == {State.FINISHED: 10, State.SCHEDULED: 2}
    assert store.find_exact(training.job_id).state is State.SCHEDULED
    assert len(store.runs) == 13


def test_what_failed_for_another_study_is_trained_anew_and_left_behind():
    store = Store()
    first = submit(store, plan())
    second = submit(store, plan("metric=loss"))
    assert store.members(first.job_id) == store.members(second.job_id)
    failed = store.members(first.job_id)[0]
    store.end(failed.job_id, State.FAILED)
    again = submit(store, plan("metric=loss"))
    assert again.run_id == second.run_id
    members = store.members(second.job_id)
    assert failed.job_id not in {job.job_id for job in members}
    # Its evaluation waits for the training that failed, so another one waits for the new one.
    assert Counter(job.group for job in members) == {first.job_id: 10, second.job_id: 2}
    assert len(store.members(first.job_id)) == 12
    assert look(store, plan("metric=loss"), STORAGE).is_whole


def test_fresh_uses_nothing_and_a_second_fresh_is_another_study():
    store = Store()
    first = submit(store, plan())
    store.end_all()
    second = submit(store, plan(), fresh=True)
    assert second.run_id != first.run_id
    assert all(job.group == second.job_id for job in store.members(second.job_id))
    third = submit(store, plan(), fresh=True)
    assert len({first.run_id, second.run_id, third.run_id}) == 3
    assert len(store.runs) == 3 * 13


def test_an_evaluation_of_other_crops_is_another_one_of_the_same_training():
    store = Store()
    submit(store, plan())
    store.end_all()
    assert actions(store, plan("evaluate.crops=flip")) == {"use": 6, "new": 6}
    assert actions(store, plan("evaluate.checkpoint=best")) == {"use": 6, "new": 6}
    assert actions(store, plan("evaluate=null")) == {"use": 6}


def test_a_training_whose_checkpoint_is_gone_is_no_use_to_a_new_evaluation(tmp_path):
    store = Store()
    parent = submit(store, plan())
    store.end_all()
    trainings = [job for job in store.members(parent.job_id) if job.kind == "train"]
    for job in trainings[1:]:
        (tmp_path / job.job_id / "checkpoints").mkdir(parents=True)
    found = look(store, plan("evaluate.crops=ten"), tmp_path)
    assert Counter(slot.training.action for slot in found.slots) == {"use": 5, "new": 1}
    assert look(store, plan(), tmp_path).is_whole  # judged before it was deleted


def test_a_chosen_name():
    store = Store()
    named = plan(name="mine")
    assert submit(store, named, named=True).job_id == "mine"
    assert submit(store, plan(name="mine"), named=True).job_id == "mine"
    other = submit(store, plan(name="other"), named=True)
    assert other.job_id == "other"
    assert len(store.runs) == 14
    with pytest.raises(JobExistsError, match="another study"):
        submit(store, plan("epochs=2", name="mine"), named=True)


def test_only_some_cells_are_a_study_of_their_own():
    store = Store()
    few = submit(store, plan(only=("*=isqrt",)))
    assert few.tags["gcpctl.only"] == "*=isqrt"
    assert len(store.members(few.job_id)) == 8
    assert actions(store, plan()) == {"use": 8, "new": 4}


def test_the_terminal_may_die_at_any_request():
    whole = Store()
    submit(whole, plan())
    requests = whole.writes
    assert requests < 4 * 13 + 4
    for crash_at in range(1, requests + 1):
        store = Store()
        store.crash_at = crash_at
        with pytest.raises(Crash):
            submit(store, plan())
        early = [job for job in store._jobs() if job.kind == STUDY]
        assert all(job.tags.get(TAG_SUBMITTED) != "true" for job in early)
        store.crash_at = None
        parent = submit(store, plan())
        _is_whole(store, parent)
        assert len(store.runs) == 13, f"duplicates after request {crash_at}"


def test_a_retry_may_be_cut_off_as_well():
    def broken() -> tuple[Store, Job]:
        store = Store()
        parent = submit(store, plan())
        store.end_all()
        for job in store.members(parent.job_id)[:4]:
            store.end(job.job_id, State.FAILED)
        store.writes = 0
        return store, parent

    store, _ = broken()
    submit(store, plan())
    for crash_at in range(1, store.writes + 1):
        store, parent = broken()
        store.crash_at = crash_at
        with pytest.raises(Crash):
            submit(store, plan())
        store.crash_at = None
        # Nothing may report on a study half of which runs again.
        now = store.get(parent.run_id)
        running = [job for job in store.members(parent.job_id) if not job.state.is_final]
        assert not running or (now.state, now.tags[TAG_SUBMITTED]) == (State.SCHEDULED, "")
        again = submit(store, plan())
        assert again.run_id == parent.run_id
        assert again.state is State.SCHEDULED
        _is_whole(store, again)
        assert len(store.runs) == 13


def _is_whole(store: Store, parent: Job) -> None:
    members = store.members(parent.job_id)
    assert Counter(job.kind for job in members) == {"train": 6, "eval": 6}
    assert len({(job.kind, job.cell, job.tags[TAG_CONFIG]) for job in members}) == 12
    assert parent.tags[TAG_SUBMITTED] == "true"
    assert all(store.runs[job.run_id]["params"] for job in members)
    trainings = [job for job in members if job.kind == "train"]
    assert all("config.yaml" in store.runs[job.run_id]["files"] for job in trainings)
    assert look(store, plan(), STORAGE).is_whole


def test_a_report_that_is_being_written_is_not_disturbed():
    store = Store()
    parent = submit(store, plan())
    store.end_all()
    failed = store.members(parent.job_id)[0]
    store.end(failed.job_id, State.FAILED)
    run = store.runs[parent.run_id]
    run["state"] = State.RUNNING
    run["tags"]["gcpctl.attempt"] = "1"
    with pytest.raises(ConflictError, match="writing its report"):
        submit(store, plan())
    assert store.find_exact(failed.job_id).state is State.FAILED
    assert store.get(parent.run_id).tags[TAG_SUBMITTED] == "true"


def test_without_a_store_everything_is_new():
    study = plan()
    parts = list(all_new(study, STORAGE).parts())
    assert Counter(part.action for part in parts) == {"new": 12}
    assert len({part.job_id for part in parts}) == 12
    assert {part.plan.spec.group for part in parts} == {study.job_id}


def test_a_report_older_than_its_jobs_is_written_anew():
    store = Store()
    parent = submit(store, plan())
    store.end_all()
    store.end(store.members(parent.job_id)[3].job_id)  # somebody had retried it alone
    again = submit(store, plan())
    assert (again.run_id, again.state) == (parent.run_id, State.SCHEDULED)
    assert look(store, plan(), STORAGE).is_whole
