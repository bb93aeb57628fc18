"""What a job finds in a process that others have used: nothing of theirs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.drivers.worker import WorkerSettings
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed

TIMED = {"perf/images_per_s", "time/epoch_s", "time/train_s", "perf/peak_memory_mb"}
PROGRAM = "tests.unit.orchestrator.drivers.jobs_in_one_process"


def run_in_one_process(*jobs: WorkerSettings) -> list[float]:
    """Run the jobs; return the resident memory after each."""
    answer = subprocess.run(
        [sys.executable, "-m", PROGRAM],
        input=json.dumps([job.to_dict() for job in jobs]),
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    return list(json.loads(answer.stdout))


def training(root: Path, pooling: dict[str, Any], **changes: Any) -> WorkerSettings:
    model = {
        "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
        "head": {"reduced_channels": 4, "pooling": pooling},
    }
    config = {"epochs": 2, "steps_per_epoch": 4, "global_batch_size": 64, "model": model, **changes}
    return WorkerSettings(config, str(root), attempt=1, threads=1, use_gpu=False)


def evaluation(root: Path, trained: Path, data: dict[str, Any] | None = None) -> WorkerSettings:
    config = {
        "weights": str(trained / "checkpoints" / "step-0000000008"),
        "data": data or {"name": "digits"},
    }
    return WorkerSettings(config, str(root), attempt=1, threads=1, use_gpu=False, kind="eval")


def found(root: Path) -> tuple[dict[str, Any], list[Any]]:
    """Return all that a job wrote which is the same whenever it runs."""
    paths = JobPaths(root)
    assert not paths.failure(1).exists(), paths.failure(1).read_text()
    rows, _ = read_committed(paths.spool, 0)
    values = [
        (row.step, row.at, {k: v.hex() for k, v in row.metrics.items() if k not in TIMED})
        for row in rows
    ]
    return json.loads(paths.result.read_text()), values


def write_images(root: Path) -> dict[str, Any]:
    """Write two classes of noise, 16 images to train on and 4 to judge; return their source."""
    pixels = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                noise = pixels.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{i:02d}.png")
    return {"name": "image_folder", "path": str(root)}


ISQRT = {"name": "isqrt"}
DROPCOV = {"name": "dropcov"}
RICH = {"seed": 7, "ema": {"decay": 0.9}, "label_smoothing": 0.1}


@pytest.fixture
def folders(tmp_path):
    return lambda name: tmp_path / name


def test_a_job_gives_the_same_numbers_whatever_ran_before_it_in_its_process(folders):
    """Other poolings, seeds and settings, a failure, an evaluation and loaders come before."""
    images = write_images(folders("images"))
    small = {"global_batch_size": 8, "images": {"size": 8, "resize": 8}, "augment": {"flip": 0.5}}
    loaders = {"data": {**images, "loader_workers": 1}, **small}
    without = {"data": images, **small}
    broken = training(folders("broken"), ISQRT, init={"weights": "/nowhere"})
    run_in_one_process(
        training(folders("first"), ISQRT, seed=3),
        evaluation(folders("eval-first"), folders("first")),
        broken,
        training(folders("dropcov"), DROPCOV, **RICH, **loaders),
        evaluation(folders("eval-dropcov"), folders("dropcov"), images),
        training(folders("again"), ISQRT, seed=3),
    )
    assert JobPaths(folders("broken")).failure(1).exists()
    run_in_one_process(
        training(folders("dropcov-alone"), DROPCOV, **RICH, **without),
        evaluation(folders("eval-alone"), folders("dropcov-alone"), images),
    )
    run_in_one_process(training(folders("first-alone"), ISQRT, seed=3))
    alone = found(folders("dropcov-alone"))
    assert [step for step, _, _ in alone[1]] == [1, 2]
    assert found(folders("dropcov")) == alone
    assert found(folders("first")) == found(folders("again")) == found(folders("first-alone"))
    packed, single = found(folders("eval-dropcov"))[0], found(folders("eval-alone"))[0]
    assert packed["metrics"] == single["metrics"]
    assert alone[0]["weights_sha256"] != found(folders("first"))[0]["weights_sha256"]
    for name in ("first", "again"):  # what each job says stays with it
        log = (folders(name) / "logs" / "attempt-1" / "rank-0.log").read_text()
        assert log.count("weights on 1,438 images") == log.count("finished: ") == 1


def test_memory_does_not_grow_with_the_number_of_jobs(folders):
    resident = run_in_one_process(
        *[
            training(folders(f"job-{i}"), (ISQRT, DROPCOV)[i % 2], epochs=1, seed=i)
            for i in range(30)
        ]
    )
    assert all(JobPaths(folders(f"job-{i}")).result.exists() for i in range(30))
    # The first jobs fill caches that stay; after them a leak shows as growth per job.
    per_job = (resident[-1] - resident[9]) / 20
    assert per_job < 1.0, resident
