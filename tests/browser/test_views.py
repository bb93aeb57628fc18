"""The saved views, opened in a real browser on a real MLflow server.

MLflow falls back to charts of its own wherever a view is not what it expects, so reading the tag
back proves nothing. Pictures are kept where GCPCTL_PICTURES says.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

from cluster.profiles import Profile
from orchestrator.jobs.job import Job
from orchestrator.jobs.store import JobStore
from orchestrator.results import doctor
from orchestrator.results.view_cards import VIEW_TAG
from orchestrator.results.views import MOST_VIEWS, forget_views, put_study_views, put_views
from tests.browser.chromium import Browser
from tests.browser.runs import EPOCHS, POOLINGS, SEEDS, make_study, make_sweep, make_training, top1

pytestmark = pytest.mark.integration

BANNER = '[data-component-id="mlflow.experiment_page.shared_view.banner"]'
CARD = '[data-testid="experiment-view-compare-runs-card"]'
AXIS = ".parcoords .dimension .label"
# Of each chart: the metric and last value of each line, which is drawn twice.
ENDS = """[...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data
    .filter(trace => trace.mode === 'lines+markers' && trace.metricKey)
    .map(trace => [trace.metricKey, trace.y[trace.y.length - 1]]))"""


@pytest.fixture(scope="module")
def study(profile: Profile) -> Job:
    return make_study(JobStore.of(profile), "pooling-study")


@pytest.fixture
def look(browser: Browser, profile: Profile, pictures: Path) -> "Look":
    return Look(browser, profile, pictures)


class Look:
    """Opens views by their word."""

    def __init__(self, browser: Browser, profile: Profile, pictures: Path) -> None:
        self._browser = browser
        self._profile = profile
        self._pictures = pictures

    def open(self, job: Job, word: str, until: str) -> Browser:
        """Open a view of what a job is, and wait until something is there."""
        views = put_views(JobStore.of(self._profile), job)
        view = next(view for view in views if view.word == word)
        self._browser.open(f"{self._profile.mlflow_url}/{view.page}")
        try:
            self._browser.wait_for(f"document.querySelector({json.dumps(BANNER)}) !== null")
            self._browser.wait_for(f"document.querySelectorAll({json.dumps(until)}).length > 0")
        finally:
            self._browser.picture(self._pictures / f"{job.job_id}.{word}.png")
        menu = self._browser.texts('[data-testid="saved-views-trigger"]')
        assert menu == [view.title]
        return self._browser


def test_the_parameters_of_a_study_are_drawn_against_its_accuracy(study: Job, look: Look) -> None:
    page = look.open(study, "params", AXIS)
    page.wait_for("document.querySelectorAll('.js-plotly-plot').length == 2")
    assert page.texts(AXIS) == ["model.head.pooling.name", "val/top1"]
    heads = [text.splitlines()[0] for text in page.texts(CARD)]
    assert heads == ["Parallel Coordinates", "model/macs vs. val/top1", "time/train_s vs. val/top1"]
    assert f"{len(POOLINGS) * len(SEEDS)} matching runs" in page.text()


def test_curves_are_means_over_seeds(study: Job, look: Look) -> None:
    page = look.open(study, "convergence", ".js-plotly-plot")
    page.wait_for("document.querySelectorAll('.js-plotly-plot').length == 4")
    page.wait_for(f"{ENDS}.flat().length === 4 * {len(POOLINGS)}")
    whole, end, *losses = page.ask(ENDS)
    means = [fmean(top1(final, seed, EPOCHS) for seed in SEEDS) for final in POOLINGS.values()]
    for chart in (whole, end):
        assert {metric for metric, _ in chart} == {"val/top1"}
        assert sorted(value for _, value in chart) == pytest.approx(sorted(means))
    assert [{metric for metric, _ in chart} for chart in losses] == [{"val/loss"}, {"train/loss"}]
    # The second one is drawn where final values can be told apart.
    low, high = page.ask("document.querySelectorAll('.js-plotly-plot')[1].layout.yaxis.range")
    assert low > 80
    assert high == pytest.approx(max(means), abs=3)
    assert "pooling=isqrt (val/top1)" in page.text()


def test_differences_are_taken_from_the_baseline_at_its_seed(study: Job, look: Look) -> None:
    header = '[data-component-id="mlflow.charts.difference_plot.header"]'
    page = look.open(study, "baseline", header)
    heads = [text.splitlines()[-1] for text in page.texts(header) if text]
    assert heads[:2] == ["Compare by", "pooling-study-gap-s0"]
    assert set(heads[2:]) == {"pooling-study-cov-s0", "pooling-study-isqrt-s0"}
    assert "+5.00" in page.text()  # isqrt against gap
    assert len(page.texts('[data-testid="positive-cell-direction"]')) >= 2


def test_a_row_of_the_table_has_the_means_of_a_cell(study: Job, look: Look) -> None:
    page = look.open(study, "table", '.ag-cell[col-id="metrics.`eval/top1`"]')
    page.wait_for("document.body.innerText.includes('Group: pooling=isqrt')")
    rows = page.ask(
        """Object.fromEntries([...document.querySelectorAll('.ag-center-cols-container .ag-row')]
            .map(row => [row.getAttribute('row-index'),
                ['val/top1', 'eval/top1'].map(k =>
                    row.querySelector('.ag-cell[col-id="metrics.`' + k + '`"]')?.innerText)]))"""
    )
    # The best cell is on top: one row for the group, then its trainings and evaluations.
    trained, judged = rows["0"]
    mean = fmean(top1(POOLINGS["isqrt"], seed, EPOCHS) for seed in SEEDS)
    assert float(trained.split()[0].rstrip("…")) == pytest.approx(mean, abs=1e-3)
    assert float(judged.split()[0]) == pytest.approx(POOLINGS["isqrt"] + 1)
    assert "params.`model.head.pooling.name`" in page.ask(
        "[...document.querySelectorAll('.ag-header-cell')].map(e => e.getAttribute('col-id'))"
    )


def test_the_trials_of_a_sweep_are_all_drawn(profile: Profile, look: Look) -> None:
    trials = [
        {"optim.lr": 0.1 / 2**number, "model.head.pooling": ("isqrt", "gap")[number % 2]}
        | ({"model.head.pooling.num_iters": 3 + number} if number % 2 == 0 else {})
        for number in range(12)
    ]
    sweep = make_sweep(JobStore.of(profile), "lr-sweep", trials)
    page = look.open(sweep, "params", AXIS)
    axes = ["optim.lr", "model.head.pooling", "model/macs", "val/top1"]
    assert page.texts(AXIS) == axes
    # More than the ten that MLflow draws by itself, those without `num_iters` among them.
    page.wait_for("document.body.innerText.includes('12 matching runs')")
    page = look.open(sweep, "table", '.ag-cell[col-id="metrics.`val/top1`"]')
    first = page.ask(
        """document.querySelector('.ag-row[row-index="0"] .ag-cell[col-id="metrics.`val/top1`"]')
            .innerText"""
    )
    assert float(first.rstrip("…")) == pytest.approx(top1(101.0, 0, EPOCHS), abs=1e-3)
    look.open(sweep, "convergence", ".js-plotly-plot")


def test_jobs_of_no_study_have_a_table(study: Job, look: Look, profile: Profile) -> None:
    alone = make_training(JobStore.of(profile), "alone", "train-alone")
    page = look.open(alone, "table", '.ag-cell[col-id="metrics.`val/top1`"]')
    assert "1 matching run" in page.text()


def ui(profile: Profile, tmp_path: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `gcpctl ui` against the server, as a profile of a home names it."""
    content = {
        "ray_url": "http://127.0.0.1:1",
        "mlflow_url": profile.mlflow_url,
        "token_path": str(profile.token_path),
        "storage_path": str(profile.storage_path),
    }
    (tmp_path / "profiles").mkdir(exist_ok=True)
    (tmp_path / "profiles" / "elsewhere.json").write_text(json.dumps(content))
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "ui", *args],
        capture_output=True,
        text=True,
        env=os.environ | {"GCPCTL_HOME": str(tmp_path), "GCPCTL_PROFILE": "elsewhere"},
        timeout=120,
        check=False,
    )


def test_the_terminal_prints_the_links(study: Job, profile: Profile, tmp_path: Path) -> None:
    lines = ui(profile, tmp_path, "pooling-study").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "run",
        "params",
        "convergence",
        "baseline",
        "table",
    ]
    one = ui(profile, tmp_path, "pooling-study-gap-s0", "--view", "convergence").stdout.strip()
    assert one == lines[2].split()[1]
    token = f"{profile.mlflow_url}/?token={profile.token()}#/experiments/{study.experiment_id}/"
    assert one.startswith(token)
    make_training(JobStore.of(profile), "plain", "train-plain")
    page = ui(profile, tmp_path, "train-plain").stdout.split()
    assert len(page) == 1  # nothing is written for a job by itself unless it is asked for
    every = ui(profile, tmp_path, "train-plain", "--view", "table").stdout
    assert "viewStateShareKey=gcpctl.all.table&compareRunsMode=TABLE" in every
    unknown = ui(profile, tmp_path, "pooling-study", "--view", "tabel")
    assert unknown.returncode == 2
    assert "params, convergence, baseline, table" in unknown.stderr


def test_the_doctor_compares_the_server_with_the_tested_one(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another version here: open every view, look at the pictures, then set TESTED_MLFLOW.
    (finding,) = doctor._views(profile)
    assert (finding.verdict, finding.remedy) == ("ok", "")
    monkeypatch.setattr(doctor, "TESTED_MLFLOW", "3.1.0")
    (finding,) = doctor._views(profile)
    assert finding.verdict == "warn"
    assert "tested with 3.1.0" in finding.message


def test_views_stay_few_and_can_be_taken_away(study: Job, profile: Profile, tmp_path: Path) -> None:
    store = JobStore.of(profile)
    experiment = study.experiment_id
    mine = f"{VIEW_TAG}of-a-person"
    store.set_experiment_tag(experiment, mine, '{"name":"Mine","createdAt":1,"state":"{}"}')
    before = store.experiment_tags(experiment)
    put_study_views(store, profile, study)
    assert store.experiment_tags(experiment) == before  # nothing is multiplied, nor made newer

    for number in range(MOST_VIEWS):
        old = f"{VIEW_TAG}gcpctl.old-{number:02d}.params"
        value = json.dumps({"name": "old", "createdAt": 1000 + number, "state": "{}"})
        store.set_experiment_tag(experiment, old, value)
    put_study_views(store, profile, study)
    views = {key for key in store.experiment_tags(experiment) if key.startswith(VIEW_TAG)}
    assert len(views) == MOST_VIEWS
    assert mine in views
    assert {f"{VIEW_TAG}gcpctl.pooling-study.{w}" for w in ("params", "table")} <= views
    assert f"{VIEW_TAG}gcpctl.old-00.params" not in views
    assert f"{VIEW_TAG}gcpctl.old-{MOST_VIEWS - 1}.params" in views

    forgotten = ui(profile, tmp_path, "pooling-study", "--forget")
    assert "4 views of pooling-study" in forgotten.stderr
    assert forget_views(store, study) == 0
    left = {key for key in store.experiment_tags(experiment) if key.startswith(VIEW_TAG)}
    assert left == {key for key in views if "pooling-study" not in key}
