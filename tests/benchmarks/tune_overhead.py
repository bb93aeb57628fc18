"""What a short trial costs beyond its training: `gcpctl tune` against stock Ray Tune.

    python -m tests.benchmarks.tune_overhead [--trials 16] [--parallel 2] [--runs 1]

Both train the same trials through the same loop, on the same fresh cluster, as many at once, one
after the other in one run. Stock is a function trainable in a `Tuner`, as Ray's documentation has
it. Per way: overhead = (wall clock - seconds of training / trials at once) / trials, where the wall
clock of both is that of the search within its driver, and the seconds of training are what the loop
itself counts (`time/train_s`). Ours does more meanwhile: its journal is on the disk before anything
follows from it, and every trial is a run in MLflow.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = "digits_resnet_isqrt"
CHANGES = ("epochs=1", "schedule.warmup_epochs=0", "model.backbone.width=8")
DEADLINE_S = 900.0

STOCK_DRIVER = """
import json, sys, time
import ray
from ray import tune

base, address, storage, trials, parallel = json.loads(sys.argv[1]), *sys.argv[2:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")

def trial(point):
    from pathlib import Path
    import torch
    from orchestrator.jobs.space import trial_config
    from workloads.training.loop import train
    from workloads.worker.folder_context import FolderContext
    torch.set_num_threads(1)
    class Context(FolderContext):
        def log_metrics(self, step, metrics, *, at):
            super().log_metrics(step, metrics, at=at)
            if "progress/epoch" in metrics:
                tune.report(dict(metrics))
    root = Path(storage) / tune.get_context().get_trial_id()
    train(trial_config(base, {"optim.lr": point["lr"]}), Context(root))

tuner = tune.Tuner(
    tune.with_resources(trial, {"cpu": 1}),
    param_space={"lr": tune.loguniform(1e-3, 1)},
    tune_config=tune.TuneConfig(num_samples=int(trials), max_concurrent_trials=int(parallel)),
    run_config=tune.RunConfig(storage_path=storage, verbose=0),
)
began = time.monotonic()
results = tuner.fit()
wall = time.monotonic() - began
work = sum(result.metrics["time/train_s"] for result in results)
found = {"wall_s": wall, "work_s": work, "trials": len(results)}
with open(storage + ".json", "w") as file:
    json.dump(found, file)
"""


def gcpctl(*args: str) -> str:
    """Run the CLI and return its answer."""
    command = [sys.executable, "-m", "orchestrator.cli.main", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def time_ours(trials: int, parallel: int) -> dict[str, float]:
    """Search through gcpctl; return the seconds of the search and of its trainings."""
    space = ("--space", "optim.lr=loguniform(1e-3, 1)", "--search", "random")
    size = ("--trials", str(trials), "--max-parallel", str(parallel))
    job_id = gcpctl("tune", RECIPE, *CHANGES, *space, *size).split()[-1]
    deadline = time.monotonic() + DEADLINE_S
    while (state := json.loads(gcpctl("status", job_id, "-o", "json"))["state"]) != "FINISHED":
        if state in ("FAILED", "KILLED") or time.monotonic() > deadline:
            raise RuntimeError(f"{job_id} is {state}: {gcpctl('logs', job_id)}")
        time.sleep(1.0)
    found = re.search(r"(\d+) trials ended in ([\d.]+) s", gcpctl("logs", job_id))
    assert found is not None, "the driver said nothing of its search"
    assert int(found[1]) == trials
    return {"wall_s": float(found[2]), "work_s": _seconds_of_training(job_id), "trials": trials}


def _seconds_of_training(job_id: str) -> float:
    from cluster.profiles import load_profile
    from orchestrator.jobs.store import JobStore

    profile = load_profile()
    assert profile is not None
    runs = JobStore.of(profile).trials(job_id)
    return sum(run.metrics["time/train_s"] for run in runs)


def time_stock(trials: int, parallel: int, storage: Path) -> dict[str, float]:
    """Search through Ray Tune alone; return the same."""
    from cluster.profiles import load_profile
    from orchestrator.jobs.plan import apply_overrides_to_recipe
    from orchestrator.jobs.ray_jobs import RayJobs
    from orchestrator.jobs.recipes import load_recipe
    from workloads.config.train import TrainConfig

    profile = load_profile()
    assert profile is not None
    document = apply_overrides_to_recipe(load_recipe(RECIPE, "train").document, CHANGES)
    base = {key: value for key, value in document.items() if key in TrainConfig.model_fields}
    folder = storage / f"stock-{time.time_ns()}"
    arguments = (json.dumps(base), profile.ray_address, str(folder), str(trials), str(parallel))
    script = folder.with_suffix(".py")
    script.write_text(STOCK_DRIVER)
    # As a job of Ray's, like ours: that is how a driver finds a cluster on loopback.
    ray_jobs, name = RayJobs.of(profile), folder.name
    ray_jobs.submit(name, shlex.join([sys.executable, str(script), *arguments]), {})
    deadline = time.monotonic() + DEADLINE_S
    while (attempt := ray_jobs.get(name)) is None or not attempt.is_over:
        if time.monotonic() > deadline:
            raise RuntimeError(f"stock Ray Tune has not ended in {DEADLINE_S:.0f} s")
        time.sleep(1.0)
    result = folder.with_suffix(".json")
    if not result.exists():
        raise RuntimeError(f"stock Ray Tune failed: {attempt.message}")
    return dict(json.loads(result.read_text()))


def overhead_s(measured: dict[str, float], parallel: int) -> float:
    """Return the seconds per trial that were no training."""
    return (measured["wall_s"] - measured["work_s"] / parallel) / measured["trials"]


def main() -> int:
    """Measure both ways and print the ratio; returns the process's exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    found: dict[str, list[float]] = {"gcpctl tune": [], "stock Ray Tune": []}
    with tempfile.TemporaryDirectory(prefix="gcpctl-benchmark-") as folder:
        os.environ["GCPCTL_HOME"] = str(Path(folder) / "home")
        gcpctl("cluster", "up", "--cpus", str(options.parallel))
        try:
            for _ in range(options.runs):
                for name in found:
                    if name == "gcpctl tune":
                        measured = time_ours(options.trials, options.parallel)
                    else:
                        measured = time_stock(options.trials, options.parallel, Path(folder))
                    found[name].append(overhead_s(measured, options.parallel))
                    sys.stdout.write(
                        f"{name:15}  {options.trials} trials in {measured['wall_s']:.1f} s, "
                        f"training {measured['work_s']:.1f} s, "
                        f"overhead {found[name][-1]:.3f} s per trial\n"
                    )
                    sys.stdout.flush()
        finally:
            gcpctl("cluster", "down")
    ours, stock = (statistics.median(values) for values in found.values())
    sys.stdout.write(f"overhead per trial: {ours:.3f} s against {stock:.3f} s\n")
    sys.stdout.write(f"stock / ours: {stock / ours:.1f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
