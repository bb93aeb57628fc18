"""Time to the first optimizer step: `gcpctl submit` against torchrun, alternating in one run.

    python -m tests.benchmarks.first_step [--runs 5] [--stock]

All ways train the same recipe with two workers through the same loop, which notes the moment
of its first optimizer step. The clock starts with the process that a person would start:
`torchrun`, or `gcpctl submit`. `--stock` adds Ray's own `TorchTrainer`, in a script of its own on
the same cluster, clock from the script's start.

The cluster is a fresh one in a temporary folder and is taken down at the end. The first run
after `cluster up` is reported by itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = "digits_resnet_isqrt"
WORKERS = 2
DEADLINE_S = 180.0

STOCK_DRIVER = """
import json, sys
import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer

settings, address, storage, name = json.loads(sys.argv[1]), *sys.argv[2:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")

def loop(settings):
    from pathlib import Path
    import torch
    from workloads.config.train import TrainConfig
    from workloads.training.loop import train
    from workloads.worker.folder_context import FolderContext
    torch.set_num_threads(1)
    context = get_context()
    train(TrainConfig.model_validate(settings["config"]), FolderContext(
        Path(settings["root"]), rank=context.get_world_rank(),
        world_size=context.get_world_size(), local_rank=context.get_local_rank()))

TorchTrainer(loop, train_loop_config=settings, scaling_config=ScalingConfig(num_workers=2),
    run_config=RunConfig(name=name, storage_path=storage)).fit()
"""


def gcpctl(*args: str) -> str:
    """Run the CLI and return its answer."""
    command = [sys.executable, "-m", "orchestrator.cli.main", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for_step(folder: Path) -> float:
    """Return the time of the first optimizer step, once it is there (seconds since 1970)."""
    deadline = time.monotonic() + DEADLINE_S
    path = folder / "first_step.json"
    while time.monotonic() < deadline:
        try:
            return float(json.loads(path.read_text())["time_ms"]) / 1000
        except (FileNotFoundError, ValueError):
            time.sleep(0.02)
    raise TimeoutError(f"no first step in {folder}")


def time_gcpctl(storage: Path) -> float:
    """Return the seconds from `gcpctl submit` to the first step; waits for the job to end."""
    started = time.time()
    job_id = gcpctl("submit", "train", RECIPE, "epochs=1", "schedule.warmup_epochs=0")
    step = wait_for_step(storage / job_id)
    while json.loads(gcpctl("status", job_id, "-o", "json"))["state"] not in ("FINISHED", "FAILED"):
        time.sleep(0.3)
    return step - started


def time_torchrun(folder: Path, config: Path) -> float:
    """Return the seconds from the start of torchrun to the first step."""
    started = time.time()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={WORKERS}", "-m", "workloads.training"]
    command += ["--config", str(config), "--root", str(folder), "--threads", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return wait_for_step(folder) - started


def time_stock(folder: Path, config: dict[str, object], profile: dict[str, str]) -> float:
    """Return the seconds from the start of a stock TorchTrainer script to the first step."""
    settings = {"config": config, "root": str(folder)}
    started = time.time()
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": profile["token_path"],
        # The embedded head listens on loopback only, which Ray must be told to accept.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    subprocess.run(
        [sys.executable, "-c", STOCK_DRIVER, json.dumps(settings), profile["ray_address"],
         str(folder.parent), folder.name],
        check=True, capture_output=True, env=environment, timeout=DEADLINE_S,
    )  # fmt: skip
    return wait_for_step(folder) - started


def describe(name: str, times: list[float], peer: list[float] | None = None) -> str:
    """Return a line with median, range and the ratio of the medians."""
    line = (
        f"{name:<34} median {statistics.median(times):5.1f} s"
        f"  range {min(times):.1f}-{max(times):.1f}  n={len(times)}"
    )
    if peer:
        line += f"  ratio to torchrun {statistics.median(times) / statistics.median(peer):.2f}"
    return line


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stock", action="store_true")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="gcpctl-bench-"))
    os.environ["GCPCTL_HOME"] = str(root / "home")
    plan = json.loads(
        gcpctl("recipes", "show", RECIPE, "epochs=1", "schedule.warmup_epochs=0", "-o", "json")
    )
    config = root / "config.json"
    config.write_text(json.dumps(plan["config"]))
    say = sys.stdout.write
    time_torchrun(root / "warm-up", config)  # file caches; not counted
    try:
        gcpctl("cluster", "up")
        from cluster.profiles import load_profile

        profile = load_profile()
        assert profile is not None
        first = time_gcpctl(profile.storage_path)
        ours, peer, stock = [], [], []
        for run in range(options.runs):
            peer.append(time_torchrun(root / f"torchrun-{run}", config))
            ours.append(time_gcpctl(profile.storage_path))
            line = f"run {run + 1}: torchrun {peer[-1]:.1f} s, gcpctl {ours[-1]:.1f} s"
            if options.stock:
                addresses = {
                    "token_path": str(profile.token_path),
                    "ray_address": profile.ray_address,
                }
                stock.append(time_stock(root / "stock" / f"run-{run}", plan["config"], addresses))
                line += f", stock Ray Train {stock[-1]:.1f} s"
            say(line + "\n")
            sys.stdout.flush()
        say(describe("torchrun, 2 processes", peer) + "\n")
        say(describe("gcpctl submit, running cluster", ours, peer) + "\n")
        say(describe("gcpctl submit, first after up", [first], peer) + "\n")
        if stock:
            say(describe("stock TorchTrainer, same cluster", stock, peer) + "\n")
    finally:
        gcpctl("cluster", "down")


if __name__ == "__main__":
    main()
