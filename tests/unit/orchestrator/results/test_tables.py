"""What a comparison looks like: on a terminal, in a paper, to another program."""

import csv
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess

import pytest

from orchestrator.cli.output import table
from orchestrator.results.columns import column_of
from orchestrator.results.compare import compare
from orchestrator.results.comparison import Delta, Estimate
from orchestrator.results.exports import to_csv, to_csv_of_cells, to_json
from orchestrator.results.latex import to_latex
from orchestrator.results.numbers import (
    estimate_text,
    interval_text,
    number_text,
    p_text,
    signed,
)
from orchestrator.results.tables import for_terminal, notes, to_markdown
from tests.unit.orchestrator.results.trainings import training

TOP1 = column_of("top1")
COSTS = {
    "model/parameters": 1_234_567.0,
    "model/macs": 4.1e9,
    "perf/images_per_s": 1204.4,
    "time/train_s": 83.2,
    "perf/peak_memory_mb": 812.0,
}


@pytest.fixture
def comparison():
    """A study of a baseline, a better cell, and one with a failed seed and an awkward name."""
    values = {
        "pooling=gap": [96.0, 96.5, 97.0],
        "pooling=isqrt": [97.0, 97.6, 98.1],
        "pooling=mpn_eig,note=50%_&_more": [95.0, 95.2, None],
    }
    trainings = []
    for cell, numbers in values.items():
        for seed, top1 in enumerate(numbers):
            more = {} if top1 is not None else {"state": "FAILED", "reason": "the loss is | nan"}
            evaluation = (
                {} if top1 is None else {"top1": top1, "top5": 99.5, "loss": 0.1, "ece": 0.02}
            )
            trainings.append(
                training(
                    cell.partition(",")[0].partition("=")[2],
                    seed,
                    cell=cell,
                    is_baseline=cell == "pooling=gap",
                    metrics=COSTS,
                    evaluation=evaluation,
                    published=97.5 if cell == "pooling=isqrt" else None,
                    **more,
                )
            )
    return compare(trainings, title="pooling-x2")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("top1", 98.056, "98.06"),
        ("loss", 0.07123, "0.0712"),
        ("model/parameters", 1_234_567, "1.23M"),
        ("model/parameters", 650, "650"),
        ("model/macs", 4.1e9, "4.1G"),
        ("perf/images_per_s", 1204.4, "1,204"),
        ("time/train_s", 83.24, "83.2 s"),
        ("time/train_s", 5400, "90.0 min"),
        ("time/train_s", 9000, "2.5 h"),
        ("time/train_s", 270_000, "3.1 d"),
    ],
)
def test_numbers(key, value, text):
    assert number_text(value, column_of(key)) == text


def test_means_and_differences():
    assert estimate_text(Estimate(98.056, 0.2149, 3), TOP1) == "98.06 ± 0.21"
    assert estimate_text(Estimate(98.056, None, 1), TOP1) == "98.06"
    assert estimate_text(Estimate(5400, 90, 3), column_of("time")) == "90.0 ± 1.5 min"
    assert estimate_text(None, TOP1) == "-"
    assert [signed(v, TOP1) for v in (1.4, -1.4, 0.0, -0.001)] == ["+1.40", "-1.40", "0.00", "0.00"]
    assert interval_text(Delta(1.0, -0.5, 2.5, 3, 0.1, "unclear"), TOP1) == "[-0.50, +2.50]"
    assert [p_text(p) for p in (None, 0.0004, 0.0214)] == ["-", "< 0.001", "0.021"]


def test_the_terminal_keeps_to_its_width(comparison):
    for width in (60, 80, 100, 160):
        for block in for_terminal(comparison, width=width):
            lines = table(block.header, block.rows).splitlines()
            narrow = len(block.header) == 2  # nothing is left to move to another part
            assert narrow or max(map(len, lines)) <= width


def test_the_terminal_says_how_many_and_marks_the_baseline(comparison):
    first = for_terminal(comparison)[0]
    rows = [
        dict(zip(map(str.strip, first.header), map(str.strip, row), strict=True))
        for row in first.rows
    ]
    assert [row["n"] for row in rows] == ["3", "3", "2 of 3"]
    assert rows[0]["cell"] == "pooling=gap *"
    assert rows[0]["verdict"] == ""
    assert (rows[1]["Δ"], rows[1]["verdict"]) == ("+1.07", "better")
    assert (rows[2]["p"], rows[2]["verdict"]) == ("-", "too few seeds")
    assert "n trainings" in notes(comparison)[0]


def test_no_verdict_stands_without_its_n(comparison):
    for width in (40, 60, 80, 100):
        with_verdict = [b for b in for_terminal(comparison, width=width) if "verdict" in b.header]
        assert all("n" in map(str.strip, block.header) for block in with_verdict)
        assert with_verdict


def test_a_verdict_on_fewer_seeds_than_the_mean_says_so():
    cells = [training("gap", seed, 90.0 + seed) for seed in (0, 1, 2)]
    cells += [training("isqrt", seed, 92.0 + seed * 1.1) for seed in (0, 1, 2, 3)]
    (_, row) = for_terminal(compare(cells))[0].rows
    assert row[2].strip() == "4"
    assert "(n 3)" in row[3]


def test_what_differs_is_shown_where_names_do_not_tell(comparison):
    def last_header(found):
        return for_terminal(found)[-1].header

    assert last_header(comparison)[0] == "cell"
    plain = [training("gap", cell="plain"), training("isqrt", cell="fancy")]
    assert last_header(compare(plain))[0] == "key"
    assert for_terminal(compare(plain))[-1].rows[0][0] == "model.head.pooling.name"


def test_published_numbers_stand_beside_ours(comparison):
    texts = [
        text.strip() for block in for_terminal(comparison) for row in block.rows for text in row
    ]
    assert "97.50 (ours +0.07)" in texts


def test_markdown_has_every_cell_and_escapes(comparison):
    text = to_markdown(comparison)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(counts) == 1
    assert r"mpn\_eig" in text
    assert r"the loss is \| nan" in text
    assert "97.57 ± 0.55 | 3 | +1.07" in text


def test_latex_is_balanced_and_escaped(comparison):
    text = to_latex(comparison)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert r"mpn\_eig,note=50\%\_\&\_more" in text
    assert r"$97.57 \pm 0.55$ & $3$ & $+1.07$ & $[" in text
    unescaped = re.sub(r"\\.", "", "\n".join(rows))
    assert unescaped.count("$") % 2 == 0
    assert not set(unescaped) & set("_#%")
    assert text.count("{") == text.count("}")
    for mark in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(mark) == 1
    assert "better" not in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_compiles_and_stays_within_its_page(comparison, tmp_path):
    document = (
        "\\documentclass{article}\n\\usepackage{adjustbox,booktabs}\n"
        f"\\begin{{document}}\n{to_latex(comparison)}\\end{{document}}\n"
    )
    (tmp_path / "page.tex").write_text(document, "utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert b"Overfull" not in done.stdout


def test_csv_holds_each_training_unrounded(comparison):
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison))))
    assert len(rows) == 9
    by_job = {row["job_id"]: row for row in rows}
    for cell in comparison.cells:
        for t in cell.trainings:
            row = by_job[t.job_id]
            assert row["cell"] == cell.name
            assert row["counted"] == str(t.state == "FINISHED").lower()
            stored = t.evaluation.get("top1")
            assert row["eval/top1"] == ("" if stored is None else repr(stored))
            assert float(row["model/parameters"]) == COSTS["model/parameters"]
    assert by_job["mpn_eig-s2"]["why_not_counted"] == "FAILED: the loss is | nan"
    assert by_job["gap-s0"]["model.head.pooling.name"] == "gap"


def test_csv_of_cells(comparison):
    rows = {row["cell"]: row for row in csv.DictReader(io.StringIO(to_csv_of_cells(comparison)))}
    for cell in comparison.cells:
        row, value = rows[cell.name], cell.values["top1"]
        assert float(row["eval/top1 mean"]) == value.mean
        assert int(row["eval/top1 n"]) == value.n
        assert float(row["delta mean"]) == cell.delta.mean
    assert rows["pooling=isqrt"]["published"] == "97.5"
    assert rows["pooling=gap"]["delta p"] == ""


def test_json_has_all_numbers_and_is_json(comparison):
    broken = dataclasses.replace(
        comparison,
        cells=(
            *comparison.cells,
            compare([training("x", 0, math.nan)], "top1").cells[0],
        ),
    )
    document = json.loads(json.dumps(to_json(broken), allow_nan=False))
    assert document["version"] == 1
    assert document["metric"] == "eval/top1"
    assert document["baseline"] == "pooling=gap"
    cells = {cell["name"]: cell for cell in document["cells"]}
    found = cells["pooling=isqrt"]
    assert found["values"]["eval/top1"]["values"] == [97.0, 97.6, 98.1]
    assert found["delta"]["verdict"] == "better"
    assert found["delta"]["values"] == pytest.approx([1.0, 1.1, 1.1])
    assert [t["seed"] for t in found["trainings"]] == [0, 1, 2]
    absent = cells["pooling=mpn_eig,note=50%_&_more"]["not_counted"]
    assert absent == [{"job_id": "mpn_eig-s2", "why": "FAILED: the loss is | nan"}]
    assert cells["pooling=gap"]["delta"]["verdict"] is None
