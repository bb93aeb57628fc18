"""`gcpctl report`: where it writes, what it says, what it refuses."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from orchestrator.cli.commands import report as command
from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.states import State
from tests.unit.orchestrator.results.studies import STUDY, StudyStore, training, whole_study


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the command over a study without drawings, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "figures.deltas",
        "figures.accuracy_against_cost",
        "curve_figures.convergence_bands",
        "curve_figures.matching",
    ):
        monkeypatch.setattr(f"orchestrator.results.{name}", lambda *args: None)

    def call_with(*arguments: str, jobs=None):
        store = StudyStore(whole_study() if jobs is None else jobs)
        monkeypatch.setattr(command, "connect", lambda: SimpleNamespace(store=store))
        return CliRunner().invoke(command.report, arguments, catch_exceptions=True)

    return call_with


def test_the_page_is_written_and_its_path_printed(call, tmp_path):
    answer = call(STUDY)
    page = tmp_path / f"{STUDY}-report" / "report.html"
    assert answer.stdout == f"{page}\n"
    assert "97.39 ± 0.24" in page.read_text()
    # The study's own run has not ended in this store.
    assert "has not ended" in answer.stderr


def test_a_folder_and_a_metric_may_be_chosen(call, tmp_path):
    assert call(STUDY, "-o", "deep/er", "--metric", "loss").exit_code == 0
    assert "lowest mean loss" in (tmp_path / "deep" / "er" / "report.md").read_text()


def test_a_study_that_runs_has_a_report_of_what_is_there(call, tmp_path):
    jobs = [*whole_study(levels=("gap",)), training("cov", 0, state=State.RUNNING)]
    assert call(STUDY, "-o", "r", jobs=jobs).exit_code == 0
    assert "6 of 7 jobs have" in (tmp_path / "r" / "report.md").read_text()


def test_a_training_is_no_study(call):
    answer = call("pool-gap-s0")
    assert isinstance(answer.exception, ConflictError)
    assert "a job of kind train; reports are of studies and sweeps" in answer.exception.message
    assert f"gcpctl compare {STUDY}" in answer.exception.hint


def test_an_unknown_name_and_an_unwritable_folder_are_said(call, tmp_path):
    assert isinstance(call("nobody").exception, NotFoundError)
    (tmp_path / "taken").write_text("a file")
    answer = call(STUDY, "-o", "taken/inside")
    assert isinstance(answer.exception, ConflictError)
    assert "cannot write to taken/inside" in answer.exception.message
