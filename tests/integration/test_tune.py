"""Searches on a real cluster of two CPUs, as they are and with their processes killed."""

import json
import urllib.request
from collections import Counter

import psutil
import pytest

from orchestrator.jobs.job import TAG_PRUNED, TAG_TRIAL, TAG_VALUES, Job
from tests.live import Live, kill, wait_for

pytestmark = pytest.mark.integration

SMALL = ("model.backbone.width=8", "schedule.warmup_epochs=0")
LR = ("--space", "optim.lr=loguniform(1e-3, 1)")
POOLING = (
    "--space",
    "model.head.pooling=choice(gap, isqrt)",
    "--space",
    "model.head.pooling.num_iters=choice(3, 5) if model.head.pooling=isqrt",
)


def tune(live: Live, name: str, *words: str) -> str:
    """Submit a search over the digits and return its id."""
    live.gcpctl("tune", "digits_resnet_isqrt", *SMALL, *words, "--name", name)
    return name


def trials_of(live: Live, name: str) -> list[Job]:
    return sorted(live.store.trials(name), key=lambda run: int(run.tags[TAG_TRIAL]))


def ended(live: Live, name: str) -> dict[str, Job]:
    return {run.run_id: run for run in trials_of(live, name) if run.state.is_final}


def trial_processes(live: Live) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            ours = process.environ().get("GCPCTL_HOME") == str(live.home)
        except psutil.Error:
            continue
        if ours and any("TrialActor" in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def placement_groups(live: Live) -> Counter:
    request = urllib.request.Request(
        f"{live.profile.ray_url}/api/v0/placement_groups?limit=1000&detail=1",
        headers={"Authorization": f"Bearer {live.profile.token()}"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        rows = json.load(answer)["data"]["result"]["result"]
    return Counter(row["state"] for row in rows)


def check_whole(live: Live, name: str, count: int) -> list[Job]:
    """Check that a search of `count` trials has each of them once, and return them."""
    runs = trials_of(live, name)
    assert [int(run.tags[TAG_TRIAL]) for run in runs] == list(range(count))
    assert all(run.state.is_final for run in runs)
    assert [run.job_id for run in runs] == [f"{name}-t{n:03d}" for n in range(count)]
    journal = live.profile.storage_path / name / "tune" / "journal.jsonl"
    events = [json.loads(line[9:]) for line in journal.read_text().splitlines()]
    for kind in ("created", "ended"):
        numbers = [event["trial"] for event in events if event["event"] == kind]
        assert sorted(numbers) == list(range(count))
    return runs


def test_a_search_ends_in_a_recipe_and_its_trials_are_child_runs(live: Live) -> None:
    job_id = tune(
        live,
        "tune-plain",
        "epochs=4",
        *LR,
        *POOLING,
        "--trials",
        "8",
        "--scheduler",
        "asha(reduction_factor=2)",
    )
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED", live.gcpctl("logs", job_id).stdout
    runs = check_whole(live, job_id, 8)
    for run in runs:
        assert run.tags["mlflow.parentRunId"] == job.run_id
        pruned = run.tags.get(TAG_PRUNED) == "true"
        assert run.state.value == ("KILLED" if pruned else "FINISHED")
        points = live.store.metric_history(run.run_id, "val/top1")
        assert [step for step, _ in points] == list(range(1, (run.epoch if pruned else 4) + 1))
    assert any(run.tags.get(TAG_PRUNED) for run in runs)
    finished = [run for run in runs if run.state.value == "FINISHED"]
    best = max(finished, key=lambda run: run.metrics["val/top1"])
    assert job.metrics["tune/best_val_top1"] == best.metrics["val/top1"]
    assert job.result["best"]["metrics"]["val/top1"] == best.metrics["val/top1"]
    recipe = live.home / "best.yaml"
    recipe.write_bytes(live.store.read_artifact(job, "best.yaml"))
    plan = live.gcpctl("submit", "train", str(recipe), "--dry-run").stdout
    wanted = next(r for r in runs if r.run_id == job.result["best"]["run_id"])
    assert wanted.tags["gcpctl.config_sha256"] in plan
    # The report that the sweep stored is the one that the terminal writes.
    folder = live.home / "sweep-report"
    live.gcpctl("report", job_id, "-o", str(folder))
    for name in ("report.html", "report.md", "trials.csv", "best.yaml"):
        assert live.store.read_artifact(job, f"report/{name}") == (folder / name).read_bytes()
    assert placement_groups(live).keys() <= {"REMOVED"}
    assert not trial_processes(live)


@pytest.mark.parametrize("victim", ["driver", "trial", "mlflow", "controller", "ray"])
def test_a_kill_loses_no_trial_and_repeats_none(live: Live, victim: str) -> None:
    words = ("epochs=6", *LR, "--trials", "6", "--search", "random")
    job_id = tune(live, f"tune-kill-{victim}", *words)
    before = wait_for("two trials", lambda: len(e := ended(live, job_id)) >= 2 and e)
    if victim == "driver":
        driver = live.driver(job_id)
        assert driver is not None
        kill(driver)
    elif victim == "trial":
        kill(wait_for("a trial's process", lambda: trial_processes(live))[0])
    else:
        kill(live.services()[victim])
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED", live.gcpctl("logs", job_id).stdout
    assert (job.attempt > 1) == (victim in ("driver", "ray"))
    runs = {run.run_id: run for run in check_whole(live, job_id, 6)}
    for run_id, run in before.items():
        assert (runs[run_id].end_ms, runs[run_id].metrics) == (run.end_ms, run.metrics)
    for run in runs.values():
        points = live.store.metric_history(run.run_id, "val/top1")
        assert [step for step, _ in points] == list(range(1, 7))


def test_a_stopped_search_goes_on(live: Live) -> None:
    job_id = tune(live, "tune-stop", "epochs=8", *LR, "--trials", "6", "--search", "random")
    before = wait_for("a trial", lambda: ended(live, job_id))
    live.gcpctl("stop", job_id)
    job = live.wait_final(job_id)
    assert job.state.value == "KILLED"
    assert all(run.state.is_final for run in trials_of(live, job_id))
    live.gcpctl("retry", job_id)
    job = wait_for(
        "the end", lambda: (j := live.store.find(job_id)).state.value == "FINISHED" and j
    )
    runs = {run.run_id: run for run in check_whole(live, job_id, 6)}
    assert all(runs[run_id].end_ms == run.end_ms for run_id, run in before.items())


def test_a_trial_that_diverges_is_a_result(live: Live) -> None:
    space = ("--space", "optim.lr=choice(0.05, 100)")
    job_id = tune(
        live, "tune-diverge", "epochs=2", "optim.weight_decay=1.0", *space, "--search", "grid"
    )
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED"
    runs = check_whole(live, job_id, 2)
    assert [run.state.value for run in runs] == ["FINISHED", "FAILED"]
    assert "Diverged" in runs[1].reason


def test_population_based_training_moves_weights(live: Live) -> None:
    space = ("--space", "optim.lr=choice(1e-5, 1e-4, 0.05, 0.1)")
    job_id = tune(
        live,
        "tune-pbt",
        "epochs=6",
        *space,
        "--trials",
        "4",
        "--scheduler",
        "pbt(every_epochs=2, resample_probability=0)",
    )
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED", live.gcpctl("logs", job_id).stdout
    runs = check_whole(live, job_id, 4)
    root = live.profile.storage_path / job_id / "trials"
    moved = {path.parent.name for path in root.glob("t*/g1")}
    assert moved, "nobody went on from another one's weights"
    journal = (root.parent / "tune" / "journal.jsonl").read_text()
    assert '"generation":1' in journal
    for run in runs:
        assert run.epoch == 6
        assert set(json.loads(run.tags[TAG_VALUES])) == {"optim.lr"}


@pytest.mark.parametrize("scheduler", ["hyperband", "median"])
def test_other_schedulers_come_to_an_end(live: Live, scheduler: str) -> None:
    job_id = tune(
        live,
        f"tune-{scheduler}",
        "epochs=9",
        *LR,
        "--trials",
        "9",
        "--search",
        "random",
        "--scheduler",
        scheduler,
    )
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED", live.gcpctl("logs", job_id).stdout
    check_whole(live, job_id, 9)


def test_trials_of_two_workers_take_turns(live: Live) -> None:
    job_id = tune(
        live,
        "tune-groups",
        "epochs=3",
        *LR,
        "--trials",
        "3",
        "--workers",
        "2",
        "--scheduler",
        "asha(reduction_factor=2)",
    )
    job = live.wait_final(job_id)
    assert job.state.value == "FINISHED", live.gcpctl("logs", job_id).stdout
    assert job.num_workers == 2
    check_whole(live, job_id, 3)
    assert placement_groups(live).keys() <= {"REMOVED"}
