"""The report of a study: its numbers are those of the store, wherever they are shown."""

import csv
import dataclasses
import io
import json
import math
import re
import statistics
from html.parser import HTMLParser

import pytest

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.states import State
from orchestrator.results import figures
from orchestrator.results.document import to_markdown
from orchestrator.results.report import render_study, write_folder
from orchestrator.results.study_note import note, sentence
from orchestrator.results.study_page import answer, study_page
from orchestrator.results.study_report import gather
from tests.unit.orchestrator.results.studies import (
    LEVELS,
    QUESTION,
    STUDY,
    TOP1,
    StudyStore,
    evaluation,
    parent,
    training,
    whole_study,
)

CELLS = [f"pooling={level}" for level in LEVELS]
DRAWINGS = ("deltas", "cost", "convergence", "matching_epoch")


def report_of(jobs=None, study=None):
    store = StudyStore(whole_study() if jobs is None else jobs, study)
    return gather(store, store.study)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return render_study(report_of())


def test_the_folder_has_everything_one_may_want(files):
    assert set(files) == {
        "report.md", "report.html", "results.csv", "cells.csv", "table.tex", "comparison.json",
        "study.yaml", *(f"figures/{name}.{kind}" for name in DRAWINGS for kind in ("svg", "pdf")),
    }  # fmt: skip
    assert all(files.values())


def markdown_of(report, drawings=DRAWINGS) -> str:
    """Return the page's text; drawing is left out, for it takes seconds."""
    return to_markdown(study_page(report, drawings))


def test_the_same_store_gives_the_same_bytes(files):
    again = render_study(report_of())
    assert [name for name in files if files[name] != again[name]] == []


# --- numbers, read back --------------------------------------------------------------------------


class Tables(HTMLParser):
    """The tables of a page as rows of text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._cell = False
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.tables[-1][-1][-1] += data


def markdown_tables(text: str) -> list[list[list[str]]]:
    tables, inside = [], False
    for line in text.splitlines():
        if line.startswith("| "):
            if not inside:
                tables.append([])
            row = [re.sub(r"[`*]", "", cell).strip() for cell in line.strip("| ").split(" | ")]
            if not set("".join(row)) <= set("-: "):
                tables[-1].append(row)
        inside = line.startswith("|")
    return tables


def both(files) -> list[list[list[list[str]]]]:
    return [
        markdown_tables(files["report.md"].decode()),
        Tables(files["report.html"].decode()).tables,
    ]


def test_markdown_and_page_show_the_same_tables(files):
    markdown, page = both(files)
    assert markdown == page
    assert len(page) == 5


def test_means_deviations_and_differences_are_those_of_the_store(files):
    for tables in both(files):
        header, *rows = tables[0]
        assert header == ["cell", "top-1 %", "n", "difference", "95 % interval", "p", "verdict"]
        assert [row[0] for row in rows] == CELLS
        for row, level in zip(rows, LEVELS, strict=True):
            mean, deviation = (float(part) for part in row[1].split(" ± "))
            assert mean == pytest.approx(statistics.fmean(TOP1[level]), abs=0.0051)
            assert deviation == pytest.approx(statistics.stdev(TOP1[level]), abs=0.0051)
            assert row[2] == "3"
        # Differences 1.0, 1.2, 1.1: mean 1.1, deviation 0.1, t(0.975, 2) = 4.302653.
        half = 4.302653 * 0.1 / math.sqrt(3)
        isqrt = rows[2]
        assert float(isqrt[3]) == pytest.approx(1.1, abs=0.0051)
        low, high = map(float, isqrt[4].strip("[]").split(", "))
        assert (low, high) == pytest.approx((1.1 - half, 1.1 + half), abs=0.0051)
        assert isqrt[6] == "better"
        assert (rows[1][3], rows[1][5], rows[1][6]) == ("0.00", "1.000", "unclear")
        assert rows[0][3:] == ["-", "-", "-", "baseline"]


def test_costs_and_matching_epochs_are_those_of_the_store(files):
    report = report_of()
    for tables in both(files):
        header, *rows = tables[1]
        assert header == ["cell", "loss"]
        assert [float(row[1].split(" ± ")[0]) for row in rows] == pytest.approx([0.11] * 3)
        header, *rows = tables[2]
        assert header[0] == "cell"
        parameters = header.index("parameters")
        assert [row[parameters] for row in rows] == ["70k", "88k", "97k"]
        assert [row[header.index("MACs")] for row in rows] == ["4.1M", "6.15M", "8.2M"]
        for row, match in zip(tables[3][1:], report.matches, strict=True):
            assert row[0] == match.cell
            assert row[1] == str(match.epoch)
            assert row[4] == ", ".join(map(str, match.by_seed)).replace("None", "-")
    base, _, isqrt = report.matches
    assert base.target == pytest.approx(statistics.fmean(TOP1["gap"]))
    # isqrt: 97.39 - 0.4 for each epoch before the last, at most 0.2 less; the target is 96.29.
    assert (base.epoch, isqrt.epoch) == (6, 4)


def test_every_training_is_listed_and_exported_unrounded(files):
    for tables in both(files):
        shown = {row[2]: float(row[4]) for row in tables[4][1:]}
        assert len(shown) == 9
        for level in LEVELS:
            for seed, value in enumerate(TOP1[level]):
                assert shown[f"pool-{level}-s{seed}"] == pytest.approx(value, abs=0.0051)
    rows = list(csv.DictReader(io.StringIO(files["results.csv"].decode())))
    exported = {(row["job_id"], float(row["eval/top1"])) for row in rows}
    assert exported == {
        (f"pool-{level}-s{seed}", value) for level in LEVELS for seed, value in
        enumerate(TOP1[level])
    }  # fmt: skip
    assert {row["model.head.pooling.name"] for row in rows} == set(LEVELS)


def test_the_json_has_what_the_page_has(files):
    found = json.loads(files["comparison.json"])
    cells = {cell["name"]: cell for cell in found["comparison"]["cells"]}
    assert cells["pooling=isqrt"]["values"]["eval/top1"]["values"] == list(TOP1["isqrt"])
    assert found["study"]["question"] == QUESTION
    assert [m["cell"] for m in found["matching_epochs"]] == CELLS
    assert found["convergence"][0]["mean"][-1] == pytest.approx(statistics.fmean(TOP1["gap"]))


# --- words ---------------------------------------------------------------------------------------


def test_the_answer_says_no_more_than_the_numbers(files):
    best, better, unclear = answer(report_of())
    assert best.startswith("The highest mean top-1 is that of `pooling=isqrt`: 97.39 ± 0.24 %")
    assert better.startswith("**Better than the baseline:** `pooling=isqrt` (+1.10, p = 0.0")
    assert unclear.startswith("**Not told apart from the baseline")
    assert "`pooling=cov`" in unclear


def test_below_three_seeds_nothing_is_concluded():
    report = report_of(whole_study(seeds=(0, 1)))
    words = " ".join(answer(report))
    assert "Too few seeds for a verdict" in words
    assert "Better than" not in words
    text = markdown_of(report)
    assert "too few seeds" in text
    assert "Holm's method" not in text


def test_methods_say_what_was_done(files):
    text = files["report.md"].decode().partition("## Methods")[2]
    for words in (
        "recipe `digits_resnet_isqrt` with `epochs=6`: small\\_resnet on digits in images of 8",
        "6 epochs, batches of 64 images, SGD (learning rate 0.1, momentum 0.9, weight decay",
        "Cells differ in `model.head.pooling.name`",
        "seeds 0, 1, 2",
        "The last checkpoint of each training was evaluated on 359 validation images",
        "corrected with Holm's method for the 2 cells",
        "1 worker of 1 CPU, on 2 CPU cores (A Processor), with Python 3.11.2, torch 2.12.1",
        "The code was at `abcdef123456`",
    ):
        assert words in text, words


def test_what_differs_between_cells_is_not_told_as_shared():
    report = report_of()
    text = markdown_of(report)
    assert "isqrt on digits" not in text
    assert report.comparison.differing_keys == ("model.head.pooling.name",)


def test_failed_trainings_are_named_before_any_number():
    report = report_of(whole_study(failed=["pool-isqrt-s2", "pool-cov-s0"]))
    text = markdown_of(report)
    above = text.partition("## Result")[0]
    assert "In no mean of top-1 below: 2 of 9 trainings" in above
    assert "`pool-isqrt-s2` of `pooling=isqrt`: FAILED: loss is not finite \\| at step" in above
    assert sentence(report).endswith("2 of 9 trainings missing")
    rows = markdown_tables(text)[0]
    assert [row[2] for row in rows[1:]] == ["3", "2 of 3", "2 of 3"]
    assert "n from 2 to 3" in text


def test_a_study_that_runs_says_so_on_top():
    jobs = [*whole_study(levels=("gap", "cov")), training("isqrt", 0, state=State.RUNNING)]
    report = report_of(jobs)
    assert not report.facts.is_final
    text = markdown_of(report)
    assert "The study has not ended: 12 of 13 jobs have" in text.partition("## Result")[0]


def test_a_cell_without_any_number_breaks_nothing():
    failed = [f"pool-isqrt-s{seed}" for seed in range(3)]
    rows = markdown_tables(markdown_of(report_of(whole_study(failed=failed))))[0]
    assert rows[3][:3] == ["pooling=isqrt", "-", "0 of 3"]


def test_a_failed_baseline_leaves_no_differences():
    failed = [f"pool-gap-s{seed}" for seed in range(3)]
    report = report_of(whole_study(failed=failed))
    assert figures.deltas(report.comparison) is None
    assert report.matches == ()
    assert "Better than" not in markdown_of(report, ["cost", "convergence"])


def test_one_cell_with_one_seed_makes_a_report():
    files = render_study(report_of(whole_study(levels=("gap",), seeds=(0,))))
    assert "96.12" in files["report.md"].decode()
    assert sorted(name for name in files if name.endswith(".svg")) == ["figures/convergence.svg"]


def test_nothing_finished_yet_makes_a_report():
    jobs = [training(level, 0, state=State.SCHEDULED) for level in LEVELS]
    files = render_study(report_of(jobs))
    assert "No training has a number to compare yet." in files["report.md"].decode()
    assert not any(name.startswith("figures/") for name in files)


def test_trainings_that_were_not_evaluated_yet_have_curves_already():
    jobs = [training(level, 0) for level in LEVELS]
    jobs += [evaluation("gap", 0)]
    report = report_of(jobs)
    assert len(report.curves) == 3
    text = markdown_of(report, ["convergence"])
    assert "FINISHED: not evaluated" in text.partition("## Result")[0]
    assert "Validation top-1 by epoch" in text


def test_another_metric_is_compared_the_right_way_round():
    store = StudyStore(whole_study())
    report = gather(store, store.study, metric="loss")  # type: ignore[arg-type]
    assert "lowest mean loss" in answer(report)[0]
    text = markdown_of(report)
    assert "loss" in markdown_tables(text)[0][0][1]


def test_reused_trainings_are_counted_as_such():
    jobs = [*whole_study(levels=("cov", "isqrt"))]
    for seed in range(3):
        jobs += [training("gap", seed, **{"gcpctl.group": "other-study"}), evaluation("gap", seed)]
    text = markdown_of(report_of(jobs))
    assert "9 trainings, 3 of them reused from elsewhere" in text
    assert "`pool-gap-s0` (reused)" in text


def test_what_is_no_study_is_refused():
    store = StudyStore([])
    with pytest.raises(ConflictError, match="train job, not a study"):
        gather(store, training("gap", 0))  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="no trainings"):
        gather(store, parent())  # type: ignore[arg-type]


def test_the_note_replaces_what_an_earlier_report_said():
    report = report_of()
    first = note(report, before="what was asked", files=["report.html"], folder="report")
    assert first.startswith("what was asked\n\n## What it found\n\nThe highest mean")
    assert f"runs/run-{STUDY}/artifacts/report/report.html" in first
    again = note(report, before=first, files=["report.html"], folder="report")
    assert again == first
    assert len(note(report, before="x" * 20_000, files=["report.html"], folder="report")) < 8000


def test_the_folder_is_replaced_file_by_file(tmp_path, files):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "gone.svg").write_text("of an earlier report")
    (tmp_path / "figures" / "mine.txt").write_text("not ours")
    (tmp_path / "report.md").write_text("old")
    write_folder(files, tmp_path)
    there = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert there == {*files, "figures/mine.txt"}
    assert (tmp_path / "report.md").read_bytes() == files["report.md"]


# --- what is claimed -----------------------------------------------------------------------------


def test_a_difference_over_fewer_seeds_than_the_mean_says_so():
    rows = markdown_tables(markdown_of(report_of(whole_study(failed=["pool-gap-s1"]))))[0]
    assert rows[3][2] == "3"
    assert rows[3][3].endswith("(n 2)")


def test_the_methods_do_not_say_that_missing_trainings_were_trained():
    whole = "Each cell was trained with seeds 0, 1, 2; "
    assert whole in markdown_of(report_of())
    text = markdown_of(report_of(whole_study(failed=["pool-gap-s1"])))
    assert whole not in text
    assert "seeds 0, 1, 2, and 1 of the 9 trainings are in no mean of top-1; " in text


def test_the_methods_tell_of_the_number_that_is_shown():
    store = StudyStore(whole_study())
    text = markdown_of(gather(store, store.study, metric="val/top1"))  # type: ignore[arg-type]
    assert "We report the validation of the last epoch on 359 images" in text
    assert "was evaluated on" not in text
    text = markdown_of(gather(store, store.study, metric="time/train_s"))  # type: ignore[arg-type]
    assert "We report `time/train_s` as it was recorded" in text


def test_one_seed_has_no_interval_to_speak_of():
    text = markdown_of(report_of(whole_study(seeds=(0,)), parent(seeds=[0])))
    assert "paired by seed. Below three seeds nothing is concluded" in text


def test_equal_cells_are_not_ranked():
    jobs = [
        dataclasses.replace(job, metrics=job.metrics | {"eval/top1": 90.0}) for job in whole_study()
    ]
    assert "90.00 ± 0.00 % (n = 3), and of 2 more." in answer(report_of(jobs))[0]


def test_a_number_that_is_none_is_not_written_out():
    jobs = [
        dataclasses.replace(job, metrics=job.metrics | {"eval/loss": 1.797e308})
        if job.job_id == "eval-cov-s1"
        else job
        for job in whole_study()
    ]
    store = StudyStore(jobs)
    text = markdown_of(gather(store, store.study, metric="loss"))  # type: ignore[arg-type]
    assert "not finite" in markdown_tables(text)[-1][5][-1]
    assert "0000000000" not in text
    assert "e+308" not in text


def test_a_study_of_many_cells_is_still_answered_in_sentences(monkeypatch):
    levels = [f"p{number}" for number in range(40)]
    for number, level in enumerate(levels):
        monkeypatch.setitem(TOP1, level, (90.0, 91.0 + number % 3, 92.0 - number % 5))
    sentences = answer(report_of(whole_study(levels), parent()))
    assert max(map(len, sentences)) < 1000
    assert any(" more." in text for text in sentences)
