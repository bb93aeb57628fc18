"""What the terminal asks the tracking server, asked of a real one that has no cluster."""

from collections.abc import Iterator

import pytest

from cluster.profiles import EMBEDDED, load_profile
from orchestrator.cli.group_page import page
from orchestrator.jobs.job import TAG_GROUP, TAG_PROGRESS, TRIAL, Job
from orchestrator.jobs.plan_tune import TuneRequest, plan_tune
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.states import State
from orchestrator.jobs.submit import record
from orchestrator.jobs.trial_store import TrialStore
from orchestrator.results.live_group import LiveGroup
from orchestrator.results.status import search_filter
from tests.benchmarks.filled_store import record_templates, tracking_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialStore]:
    """A store with a study of two cells and a training of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, tracking_server(home):
        patch.setenv("GCPCTL_HOME", str(home))
        profile = load_profile(EMBEDDED)
        assert profile is not None
        store = TrialStore.of(profile)
        record_templates(store)
        yield store


def of_kind(store: TrialStore, kind: str) -> list[Job]:
    return [job for job in store.search(limit=100) if job.kind == kind]


def listed(store: TrialStore, *states: str, everything: bool = False) -> list[str]:
    where = search_filter(states, None, everything=everything)
    return sorted(job.kind for job in store.search(where, limit=100))


def test_the_jobs_of_studies_are_listed_only_when_asked_for(store: TrialStore):
    assert listed(store) == ["ablation", "train"]
    assert listed(store, everything=True) == ["ablation", "eval", "eval", *["train"] * 3]
    assert listed(store, "RUNNING") == []


def test_a_job_of_a_release_without_groups_is_listed(store: TrialStore):
    (alone,) = (job for job in of_kind(store, "train") if not job.group)
    store.delete_tag(alone, TAG_GROUP)
    try:
        assert listed(store) == ["ablation", "train"]
    finally:
        store.set_tags(alone, {TAG_GROUP: ""})


def test_a_study_is_looked_at_again(store: TrialStore):
    (study,) = of_kind(store, "ablation")
    live = LiveGroup(store, study)
    assert {job.state for job in live.look(study)} == {State.SCHEDULED}
    first, second, *_ = store.members(study.job_id)
    store.move(first, State.RUNNING, phase="training", reason="", tags={"gcpctl.attempt": "1"})
    store.move(second, State.KILLED, phase="", reason="stopped")
    found = {job.job_id: job.state for job in live.look(study)}
    assert (found[first.job_id], found[second.job_id]) == (State.RUNNING, State.KILLED)
    assert len(found) == 4


def test_a_sweep_has_trials_that_are_no_jobs(store: TrialStore):
    plan = plan_tune(
        "digits_resnet_isqrt", (), TuneRequest(space=("optim.lr=loguniform(1e-3, 1)",))
    )
    sweep = record(store, plan, Provenance(user="me", command="tune"), cluster="lab")
    live = LiveGroup(store, sweep)
    assert live.look(sweep) == []
    trials = [
        store.begin_trial(
            f"{sweep.job_id}-t{n:03}",
            sweep.experiment_id,
            {
                "gcpctl.kind": TRIAL,
                TAG_GROUP: sweep.job_id,
                "gcpctl.cell": f"lr=0.{n}",
                "mlflow.parentRunId": sweep.run_id,
            },
            start_ms=1000 + n,
        )
        for n in range(3)
    ]
    points = [("val/top1", 90.0, 2000, 1), ("progress/epoch", 1.0, 2000, 1)]
    store.fill_trial(trials[1], points=points, tags={TAG_PROGRESS: "{}"})
    store.set_trial_state(trials[1], State.FINISHED, end_ms=2000)
    text = page(sweep, live.look(sweep))
    assert "1 of 20 trials done" in text
    assert f"{sweep.job_id}-t001  FINISHED  1      90" in text
    assert listed(store, everything=True).count("trial") == 0
