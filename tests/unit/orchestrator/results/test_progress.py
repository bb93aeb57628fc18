"""How far studies and sweeps are, and how that reads."""

import json

import pytest

from orchestrator.cli import group_page
from orchestrator.jobs.job import TAG_EVALUATED, TAG_HOST, TAG_SPEC, Job, member_tag
from orchestrator.jobs.states import State
from orchestrator.results.progress import TAG_BASELINE_CELL, TAG_PRUNED, study_progress

STUDY = "ablation-pooling-k7x2"


def job(name: str, kind: str, state: State, cell: str, seed: int = 0, **more) -> Job:
    tags = {
        "gcpctl.job_id": name,
        "gcpctl.kind": kind,
        "gcpctl.group": more.pop("group", STUDY),
        "gcpctl.cell": cell,
        "gcpctl.seed": str(seed) if kind == "train" else "",
        "gcpctl.attempt": "0" if state is State.SCHEDULED else "1",
        "gcpctl.attempt_launch_ms": "" if state is State.SCHEDULED else "1000",
        member_tag(STUDY): cell,
        TAG_SPEC: json.dumps({"config": {"epochs": 8}}),
        **more.pop("tags", {}),
    }
    return Job(
        run_id=name,
        experiment_id="1",
        state=state,
        tags=tags,
        metrics=more.pop("metrics", {}),
        start_ms=1,
        end_ms=11_000 if state.is_final else None,
        artifact_uri="",
    )


def judged(training: str, state: State, cell: str, **metrics: float) -> Job:
    return job(
        f"eval-{training}",
        "eval",
        state,
        cell,
        tags={TAG_EVALUATED: training},
        metrics={f"eval/{key}": value for key, value in metrics.items()},
    )


PARENT = job(
    STUDY,
    "ablation",
    State.SCHEDULED,
    "",
    group="",
    tags={
        TAG_BASELINE_CELL: "pooling=gap",
        TAG_SPEC: json.dumps({"config": {"question": "Which pooling?"}}),
    },
)


def members() -> list[Job]:
    done, failed, waits, runs = State.FINISHED, State.FAILED, State.SCHEDULED, State.RUNNING
    return [
        job("i0", "train", done, "pooling=isqrt", 0, metrics={"val/top1": 90.0}),
        judged("i0", done, "pooling=isqrt", top1=98.0),
        job("i1", "train", done, "pooling=isqrt", 1, metrics={"val/top1": 99.0}),
        judged("i1", waits, "pooling=isqrt"),
        job("g1", "train", failed, "pooling=gap", 1, tags={"gcpctl.reason": "diverged"}),
        job("g0", "train", runs, "pooling=gap", 0, tags={"gcpctl.progress": '{"epoch": 3}'}),
        judged("g0", waits, "pooling=gap"),
    ]


def test_cells_come_with_their_seeds_in_order_and_the_baseline_first():
    progress = study_progress(PARENT, members())
    assert [cell.name for cell in progress.cells] == ["pooling=gap", "pooling=isqrt"]
    gap, isqrt = progress.cells
    assert (gap.marks(), gap.marks(plain=True)) == ("▶✗", "RX")
    # A training whose evaluation is still to come is not through.
    assert isqrt.marks() == "✓▶"


def test_the_evaluation_counts_where_there_is_one_else_the_last_validation():
    _, isqrt = study_progress(PARENT, members()).cells
    assert isqrt.top1 == (98.0, 99.0)
    assert isqrt.top1_text() == "98.50 ± 0.71"
    gap, _ = study_progress(PARENT, members()).cells
    assert gap.top1_text() == "-"


def test_counts_and_what_is_left():
    progress = study_progress(PARENT, members())
    assert (progress.done, progress.total, progress.reused) == (4, 7, 0)
    assert progress.summary() == "4 of 7 jobs done, 1 running, 1 failed"
    assert progress.seconds_left == 30.0  # 1 training and 2 evaluations of 10 s, one driver
    assert study_progress(PARENT, members()[-3:]).seconds_left is None  # nothing to go by


def test_jobs_of_one_process_are_one_driver():
    host = {TAG_HOST: "g0-a1"}
    two = [*members(), job("x", "train", State.RUNNING, "pooling=cov", tags=host)]
    assert study_progress(PARENT, two).seconds_left == 40.0
    own = [*members(), job("x", "train", State.RUNNING, "pooling=cov")]
    assert study_progress(PARENT, own).seconds_left == 20.0


def test_what_was_trained_for_another_study_is_said():
    mine = members()
    mine[0] = job("i0", "train", State.FINISHED, "pooling=isqrt", 0, group="other")
    assert "1 from elsewhere" in study_progress(PARENT, mine).summary()


def test_the_page_names_question_progress_cells_and_failures(monkeypatch):
    monkeypatch.setattr(group_page, "_takes_marks", lambda: True)
    text = group_page.study_page(study_progress(PARENT, members()))
    assert text.split("\n")[0] == f"{STUDY}  SCHEDULED  Which pooling?"
    assert "4 of 7 jobs done, 1 running, 1 failed, about 30 s left" in text
    assert "pooling=gap (baseline)  ▶✗     -             seed 0: epoch 3/8" in text
    assert text.endswith("g1: diverged")


def test_without_unicode_there_are_letters(monkeypatch):
    monkeypatch.setattr(group_page, "_takes_marks", lambda: False)
    text = group_page.study_page(study_progress(PARENT, members()))
    assert "RX" in text
    assert "#####" in text
    assert not set(text) & set("▶✗█░")


@pytest.mark.parametrize(("highest_first", "first"), [(True, "t-b"), (False, "t-a")])
def test_trials_are_ordered_by_the_objective_and_pruned_ones_marked(highest_first, first):
    trials = [
        job("t-a", "trial", State.FINISHED, "lr=0.1", metrics={"val/top1": 1.0}),
        job(
            "t-b",
            "trial",
            State.KILLED,
            "lr=1",
            tags={TAG_PRUNED: "true"},
            metrics={"val/top1": 2.0},
        ),
        job("t-c", "trial", State.RUNNING, "lr=2"),
    ]
    text = group_page.trial_table(trials, "val/top1", highest_first=highest_first)
    lines = text.split("\n")
    assert lines[1].startswith(first)
    assert "t-b    PRUNED" in text
    assert lines[-1].startswith("t-c")


def test_where_room_is_short_the_cells_that_run_are_shown_in_their_place():
    waiting = [job(f"w{n}", "train", State.SCHEDULED, f"a={n}") for n in range(5)]
    progress = study_progress(PARENT, [*waiting, *members()[-2:]])
    text = group_page.cell_table(progress, most=2)
    lines = text.split("\n")
    assert [line.split()[0] for line in lines[1:]] == ["pooling=gap", "a=0", "and"]
    assert lines[-1] == "and 4 more cells"
    assert "more" not in group_page.cell_table(progress, most=6)


def test_a_job_handed_to_a_busy_driver_still_waits():
    handed = job("h", "train", State.RUNNING, "pooling=cov", tags={TAG_HOST: "g0-a1"})
    progress = study_progress(PARENT, [*members(), handed])
    assert progress.counts[State.RUNNING] == 1
    assert progress.cells[-1].marks() == "·"
    stopped = job("h", "train", State.KILLED, "pooling=cov", tags={TAG_HOST: "g0-a1"})
    assert study_progress(PARENT, [stopped]).counts == {State.KILLED: 1}
