"""How long the terminal takes to answer: `gcpctl --help` against `python -c "import click"`.

    python -m tests.benchmarks.cli_start [--runs 15]

Alternating, whole processes, median and range. Also `gcpctl status` against the same peer, if a
cluster of this home is up.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

GCPCTL = str(Path(sys.executable).with_name("gcpctl"))


def seconds(command: list[str]) -> float:
    """Return how long a process takes from start to end."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def compare(name: str, command: list[str], runs: int) -> None:
    """Write the ratio of a command to the peer."""
    peer_command = [sys.executable, "-c", "import click"]
    seconds(command), seconds(peer_command)  # file caches
    ours, peer = [], []
    for _ in range(runs):
        ours.append(seconds(command))
        peer.append(seconds(peer_command))
    ratio = statistics.median(ours) / statistics.median(peer)
    sys.stdout.write(
        f"{name:<16} median {statistics.median(ours) * 1000:4.0f} ms"
        f"  range {min(ours) * 1000:.0f}-{max(ours) * 1000:.0f} ms"
        f"  ratio to `import click` ({statistics.median(peer) * 1000:.0f} ms) {ratio:.2f}\n"
    )


def main() -> None:
    """Run the benchmark and write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    compare("gcpctl --help", [GCPCTL, "--help"], runs)
    if subprocess.run([GCPCTL, "status"], capture_output=True, check=False).returncode == 0:
        compare("gcpctl status", [GCPCTL, "status"], runs)


if __name__ == "__main__":
    main()
