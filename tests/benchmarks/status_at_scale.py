"""How long `gcpctl status` takes with ten thousand jobs, against `python -c "import click"`.

    python -m tests.benchmarks.status_at_scale [--jobs 10000] [--studies 20] [--runs 7]

A tracking server of its own, on SQLite in a temporary folder, is filled (`filled_store.py`) with
studies of 300 trainings and evaluations each, the newest of all jobs, and single trainings. One
study waits, one runs, the others are over. Ways alternate with the peer; whole processes, except
for the last line: one more look of `gcpctl watch`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.layout import Layout
from cluster.profiles import EMBEDDED, load_profile
from orchestrator.cli.group_page import page
from orchestrator.jobs.store import JobStore
from orchestrator.results.live_group import LiveGroup
from tests.benchmarks.cli_start import GCPCTL, seconds
from tests.benchmarks.filled_store import (
    Database,
    Filled,
    fill,
    record_templates,
    store_reports,
    tracking_server,
)

PEER = [sys.executable, "-c", "import click"]


def compare(name: str, way: Callable[[], float], runs: int) -> None:
    """Write median and range of a way, and its ratio to the peer."""
    way(), seconds(PEER)  # file caches, and the server's
    ours, peer = [], []
    for _ in range(runs):
        ours.append(way())
        peer.append(seconds(PEER))
    ratio = statistics.median(ours) / statistics.median(peer)
    sys.stdout.write(
        f"{name:<18} median {statistics.median(ours) * 1000:5.0f} ms"
        f"  range {min(ours) * 1000:.0f}-{max(ours) * 1000:.0f} ms"
        f"  ratio to `import click` ({statistics.median(peer) * 1000:.0f} ms) {ratio:.1f}\n"
    )
    sys.stdout.flush()


def ways(store: JobStore, filled: Filled) -> Mapping[str, Callable[[], float]]:
    """Return what is measured, by name."""

    def command(*words: str) -> Callable[[], float]:
        return lambda: seconds([GCPCTL, *words])

    group = store.find(filled.running)
    live = LiveGroup(store, group)
    live.look(group)

    def look() -> float:
        began = time.perf_counter()
        fresh = store.get(group.run_id)
        page(fresh, live.look(fresh))
        return time.perf_counter() - began

    return {
        "status": command("status"),
        "status --active": command("status", "--active"),
        "status --tree": command("status", "--tree"),
        "status JOB": command("status", filled.alone),
        "status STUDY": command("status", filled.finished),
        "watch, first look": command("watch", filled.finished),
        "watch, next look": look,
    }


def main() -> int:
    """Fill a store, measure, and write the lines; returns the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--studies", type=int, default=20, help="At least 3.")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--shell", action="store_true", help="Open a shell there instead.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gcpctl-benchmark-") as folder:
        os.environ["GCPCTL_HOME"] = folder
        os.environ.pop("GCPCTL_PROFILE", None)
        with tracking_server(Path(folder)) as path:
            profile = load_profile(EMBEDDED)
            assert profile is not None
            store = JobStore.of(profile)
            record_templates(store)
            filled = fill(Database(path), options.jobs, options.studies)
            store_reports(store, Layout(Path(folder)).mlflow / "artifacts")
            size = path.stat().st_size / 1e6
            sys.stdout.write(f"{options.jobs} jobs, {size:.0f} MB\n")
            if options.shell:
                sys.stdout.write(f"{filled}\n")
                sys.stdout.flush()
                return subprocess.run(["bash"], check=False).returncode
            for name, way in ways(store, filled).items():
                compare(name, way, options.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
