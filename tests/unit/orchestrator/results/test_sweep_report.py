"""The report of a sweep."""

import csv
import dataclasses
import io
import json

import pytest

from orchestrator.jobs.job import TAG_PRUNED, TAG_TRIAL, TAG_VALUES
from orchestrator.jobs.states import State
from orchestrator.results import sweep_figures
from orchestrator.results.document import to_markdown
from orchestrator.results.sweep import trials_csv
from orchestrator.results.sweep_page import render_sweep, sweep_page
from orchestrator.results.sweep_report import gather_sweep
from tests.unit.orchestrator.results.studies import make_job, spec_of

SWEEP = "tune-digits-x7k2"
SPACE = [
    {"key": "optim.lr", "domain": {"kind": "uniform", "low": 0.001, "high": 1.0, "log": True}},
    {"key": "model.head.pooling", "domain": {"kind": "choice", "values": ["gap", "isqrt"]}},
    {
        "key": "model.head.pooling.num_iters",
        "domain": {"kind": "choice", "values": [3, 5]},
        "when": {"model.head.pooling": ["isqrt"]},
    },
]
CONFIG = {
    "recipe": "digits_resnet_isqrt",
    "base": {"data": {"name": "digits"}, "epochs": 4},
    "space": SPACE,
    "objectives": [{"metric": "val/top1"}, {"metric": "model/macs", "direction": "min"}],
}
VALUES = [
    {"optim.lr": 0.1, "model.head.pooling": "gap"},
    {"optim.lr": 0.02, "model.head.pooling": "isqrt", "model.head.pooling.num_iters": 5},
    {"optim.lr": 0.9, "model.head.pooling": "gap"},
    {"optim.lr": 0.5, "model.head.pooling": "isqrt", "model.head.pooling.num_iters": 3},
]
TOP1 = [96.25, 98.125, 40.0, None]
MACS = [4e6, 6e6, 4e6, 6e6]


class Store:
    """A sweep with four trials: two finished, one pruned, one failed."""

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def trials(self, group, *, experiments):
        assert (group, experiments) == (SWEEP, ["1"])
        return [self.trial(number) for number in reversed(range(self.count))]

    def trial(self, number: int):
        top1 = TOP1[number]
        metrics = {"model/macs": MACS[number], "progress/epoch": 4.0, "time/train_s": 8.0}
        tags = {TAG_TRIAL: str(number), TAG_VALUES: json.dumps(VALUES[number])}
        state = State.FINISHED
        if number == 2:
            state, tags[TAG_PRUNED] = State.KILLED, "true"
        if top1 is None:
            state, tags["gcpctl.reason"] = State.FAILED, "loss is <not> finite"
        else:
            metrics["val/top1"] = top1
        name = f"{SWEEP}-t{number:03d}"
        return make_job(name, "trial", spec_of({}), state=state, metrics=metrics, **tags)


def sweep_job(**tags: str):
    return make_job(SWEEP, "tune", spec_of(CONFIG, job_id=SWEEP, kind="tune"), **tags)


def report_of(count: int = 4, **tags: str):
    return gather_sweep(Store(count), sweep_job(**tags))  # type: ignore[arg-type]


def test_the_best_trial_its_recipe_and_the_front_are_there():
    report = report_of()
    text = to_markdown(sweep_page(report, {}))
    assert "`t001` reached `val/top1` 98.12, `model/macs` 6M with `optim.lr=0.02`" in text
    assert "1 of 4 trials failed" in text.partition("## Best trial")[0]
    assert "`t003`: loss is \\<not\\> finite" in text
    assert "extends: digits_resnet_isqrt" in text
    assert [trial.number for trial in report.front] == [1, 0]
    assert "| `t000` | 96.25 | 4M |" in text


def test_importance_is_told_as_the_driver_found_it():
    result = json.dumps({"importance": {"optim.lr": 0.75}, "importance_remark": "a rough guide"})
    report = report_of(**{"gcpctl.result": result})
    assert [(s.label, s.share) for s in report.importance.shares] == [("optim.lr", 0.75)]
    text = to_markdown(sweep_page(report, {"importance": b""}))
    assert "optim.lr 0.75" in text
    assert "a rough guide" in text
    assert "is told when the sweep has ended" in to_markdown(sweep_page(report_of(), {}))


def test_the_folder_has_every_trial_unrounded():
    files = render_sweep(report_of())
    rows = list(csv.DictReader(io.StringIO(files["trials.csv"].decode())))
    assert [row["val/top1"] for row in rows] == ["96.25", "98.125", "40.0", ""]
    assert {"report.md", "report.html", "best.yaml", "figures/parallel.svg"} <= set(files)


@pytest.mark.parametrize("count", [0, 1])
def test_a_sweep_that_has_hardly_begun_makes_a_page(count):
    report = report_of(count)
    drawn = sweep_figures.parallel(report.sweep, report.trials)
    assert drawn is None
    text = to_markdown(sweep_page(report, {}))
    assert ("No trial has finished" in text) == (count == 0)


def test_what_is_no_number_is_never_the_best(monkeypatch):
    monkeypatch.setattr(f"{__name__}.TOP1", [96.25, 1.7976931348623157e308, 40.0, None])
    report = report_of()
    assert report.best is not None
    assert report.best.name == "t000"
    text = to_markdown(sweep_page(report, {}))
    assert "e+308" not in text
    assert "0000000000" not in text


def test_no_reason_in_the_table_of_trials_is_a_formula():
    trial = dataclasses.replace(report_of().trials[3], reason="=cmd|' /C calc'!A0")
    rows = list(csv.DictReader(io.StringIO(trials_csv(report_of().sweep, [trial]))))
    assert rows[0]["reason"] == "'=cmd|' /C calc'!A0"


def test_a_figure_counts_the_trials_that_it_shows():
    text = to_markdown(
        sweep_page(report_of(), {"history": b"", "parallel": b"", "importance": b""})
    )
    assert text.count("n = 3 trials") == 2  # the failed one has no number
    assert "(fANOVA); of one that not all trials have" in text
