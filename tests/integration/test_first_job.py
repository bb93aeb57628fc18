"""The main job and its commands, on a real cluster."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from orchestrator.jobs.states import State
from tests.live import Live, wait_for

pytestmark = pytest.mark.integration

SHORT = ("epochs=2", "schedule.warmup_epochs=0")


def test_the_main_job_from_submit_to_report(live: Live):
    name = "first"
    answer = live.gcpctl(
        "submit", "train", "digits_resnet_isqrt", "--follow", "--name", name, "seed=1"
    )
    lines = answer.stdout.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 20
    assert any(line.startswith("FINISHED first") for line in lines)
    assert sum(line.startswith("  gcpctl ") for line in lines) == 3
    status = live.status(name)
    assert status["state"] == "FINISHED"
    assert status["result"]["val_top1"] >= 97.0
    assert status["result"]["num_val_images"] == 359
    job = live.store.find(name)
    for key in ("train/loss", "val/loss", "val/top1", "val/top5", "perf/images_per_s", "optim/lr"):
        steps = [step for step, _ in live.store.metric_history(job.run_id, key)]
        assert steps == list(range(1, 21)), key
    steps = [step for step, _ in live.store.metric_history(job.run_id, "train/step_loss")]
    assert len(steps) == len(set(steps))
    assert set(live.store.list_artifacts(job)) >= {
        "config.yaml",
        "command.txt",
        "environment.json",
    }
    environment = json.loads(live.store.read_artifact(job, "environment.json"))
    assert environment["packages"]["torch"]
    assert job.tags["mlflow.user"]
    assert live.status(name)["attempts"] == [
        {"attempt": 1, "outcome": "finished", "class": "", "reason": job.reason}
    ]
    # The log outlives the job, by rank and attempt.
    log = live.gcpctl("logs", name).stdout
    assert "[rank 0] epoch 20/20" in log
    rank_0 = live.gcpctl("logs", name, "--rank", "0", "--tail", "1").stdout
    assert rank_0.startswith("finished")
    followed = live.gcpctl("logs", name, "-f")
    assert "[rank 0] epoch 20/20" in followed.stdout
    assert "first is FINISHED" in followed.stderr


def test_a_second_job_of_that_name_is_refused(live: Live):
    job_id = live.gcpctl("submit", "train", "digits_resnet_isqrt", "--name", "twin", *SHORT)
    assert job_id.stdout.strip() == "twin"
    again = live.gcpctl("submit", "train", "digits_resnet_isqrt", "--name", "twin", check=False)
    assert again.returncode == 6
    assert "already" in again.stderr
    assert live.wait_final("twin").state is State.FINISHED


def test_a_terminal_closed_at_once_loses_nothing(live: Live):
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "submit", "train", "digits_resnet_isqrt",
         "--follow", "--name", "closed", *SHORT],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "submitted closed" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGHUP)
    process.communicate()
    assert live.wait_final("closed").state is State.FINISHED


def test_ctrl_c_ends_the_watching_not_the_job(live: Live):
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "submit", "train", "digits_resnet_isqrt",
         "--follow", "--name", "watched", *SHORT],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "watched goes on" in errors
    assert "Traceback" not in errors
    assert live.wait_final("watched").state is State.FINISHED


def test_jobs_wait_in_line_and_say_why_and_stop_keeps_a_checkpoint(live: Live):
    long = live.submit("epochs=500", "--name", "long")
    wait_for("training", lambda: live.status(long)["progress"].get("global_step", 0) > 30)
    live.submit("--name", "next", *SHORT)
    live.submit("--name", "urgent", "--priority", "5", *SHORT)
    live.submit("--name", "after", "--after", "next", *SHORT)
    waiting = wait_for("a reason", lambda: live.status("urgent")["reason"])
    assert waiting == "waiting: needs 2 CPUs, 0 CPUs free"
    assert "behind urgent" in wait_for("a reason", lambda: live.status("next")["reason"])
    assert "for next to finish" in wait_for("a reason", lambda: live.status("after")["reason"])
    live.gcpctl("stop", long, "--wait")
    stopped = live.status(long)
    assert stopped["state"] == "KILLED"
    assert "checkpoint saved" in stopped["reason"]
    ended = {name: live.wait_final(name) for name in ("urgent", "next", "after")}
    assert all(job.state is State.FINISHED for job in ended.values())
    assert ended["urgent"].first_launch_ms < ended["next"].first_launch_ms
    assert ended["next"].first_launch_ms < ended["after"].first_launch_ms
    # A retry goes on from the checkpoint; then stop it again.
    step = stopped["progress"]["global_step"]
    live.gcpctl("retry", long)
    resumed = wait_for("progress", lambda: live.status(long)["progress"].get("global_step", 0))
    assert resumed >= step
    wait_for("a word on it", lambda: "resum" in live.gcpctl("logs", long).stdout)
    live.gcpctl("stop", long, "--wait")
    again = live.gcpctl("retry", "urgent", check=False)
    assert again.returncode == 6


def test_a_users_error_fails_once_with_its_reason(live: Live):
    answer = live.gcpctl(
        "submit", "train", "digits_resnet_isqrt", "--follow", "--name", "diverges",
        "optim.lr=100", "optim.weight_decay=1", *SHORT, check=False,
    )  # fmt: skip
    job = live.wait_final("diverges")
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert "finite" in job.reason
    assert answer.returncode == 10


def test_more_workers_than_the_cluster_can_hold(live: Live):
    answer = live.gcpctl("submit", "train", "digits_resnet_isqrt", "--workers", "64", check=False)
    assert answer.returncode == 7
    assert "--workers 2" in answer.stderr


@pytest.fixture
def folder(tmp_path):
    """A small ImageNet-shaped tree, with one image cut short."""
    for split, count in (("train", 12), ("val", 4)):
        for colour in ("red", "blue"):
            target = tmp_path / split / colour
            target.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40 + i, 36), colour).save(target / f"{i}.jpg")
    broken = tmp_path / "train" / "red" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    return tmp_path


def test_an_image_folder_with_a_broken_file(live: Live, folder):
    words = [
        "submit", "train", "folder_resnet18_isqrt", f"data.path={folder}", "images.size=32",
        "model.backbone.name=small_resnet", "model.head.reduced_channels=16", "epochs=1",
        "schedule.warmup_epochs=0", "global_batch_size=8", "job.num_workers=2",
        "job.cpus_per_worker=1", "job.gpus_per_worker=0",
    ]  # fmt: skip
    refused = live.gcpctl(*words, check=False)
    assert refused.returncode == 2
    assert "train/red/3.jpg" in refused.stderr
    job = live.wait_final(live.gcpctl(*words, "data.on_bad_image=skip").stdout.strip())
    assert job.state is State.FINISHED, job.reason
    assert job.result["skipped_images"] == 1


def test_nobody_without_the_token(live: Live):
    profile = live.profile
    for url in (
        f"{profile.mlflow_url}/api/2.0/mlflow/experiments/search",
        f"{profile.ray_url}/api/jobs/",
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=5)
        assert caught.value.code in (401, 403)


def test_two_clusters_tokens_mixed_up(live: Live, tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text("of-another-cluster")
    token.chmod(0o600)
    profile = {
        "ray_url": live.profile.ray_url,
        "ray_address": live.profile.ray_address,
        "mlflow_url": live.profile.mlflow_url,
        "token_path": str(token),
        "storage_path": str(tmp_path),
    }
    folder = live.home / "profiles"
    folder.mkdir(exist_ok=True)
    (folder / "mixed.json").write_text(json.dumps(profile))
    monkeypatch.setenv("GCPCTL_PROFILE", "mixed")
    answer = live.gcpctl("status", check=False)
    assert answer.returncode == 4
    assert "refused the token" in answer.stderr


def test_eight_submits_at_once_make_one_job_of_one_name(live: Live):
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: live.gcpctl(
                    "submit", "train", "digits_resnet_isqrt", "--name", "race", *SHORT, check=False
                ),
                range(8),
            )
        )
    assert {answer.returncode for answer in answers} <= {0, 6}
    assert live.wait_final("race").state is State.FINISHED
    runs = live.store.search("tags.`gcpctl.job_id` = 'race'")
    final = wait_for(
        "the duplicates' end",
        lambda: (
            [run.state for run in live.store.search("tags.`gcpctl.job_id` = 'race'")]
            if all(r.state.is_final for r in live.store.search("tags.`gcpctl.job_id` = 'race'"))
            else None
        ),
    )
    assert final.count(State.FINISHED) == 1, [run.tags for run in runs]


def test_status_filters(live: Live):
    def names(*options: str) -> set[str]:
        answer = live.gcpctl("status", "-o", "json", "-n", "100", *options).stdout
        return {job["job_id"] for job in json.loads(answer)}

    everything = names()
    assert names("--state", "killed") | names("--state", "FAILED") == names(
        "--state", "killed", "--state", "failed"
    )
    assert names("--active") == set()
    assert names("--recipe", "folder_resnet18_isqrt") < everything
    assert names("--study", "digits") < everything
    assert live.gcpctl("status", "--study", "nosuch", check=False).returncode == 5
    assert live.gcpctl("status", "--recipe", "a'b\\").stdout == ""


def test_status_is_two_requests(live: Live, monkeypatch):
    from click.testing import CliRunner

    from orchestrator.cli.commands.status import status
    from orchestrator.jobs.http import HttpClient

    seen = []
    send = HttpClient.send

    def count(self, method, path, *args, **kwargs):
        seen.append(path)
        return send(self, method, path, *args, **kwargs)

    monkeypatch.setattr(HttpClient, "send", count)
    assert CliRunner().invoke(status).exit_code == 0
    assert len(seen) == 2
