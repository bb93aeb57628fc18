"""Run jobs one after the other in this process, as a packed worker does; the tests start it.

Reads a JSON list of settings from standard input; writes the resident memory after each job, in
10^6 bytes, as a JSON list.
"""

import json
import os
import sys
from pathlib import Path

from orchestrator.drivers.kept_worker import PackedWorker
from orchestrator.drivers.worker import WorkerError


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    worker = PackedWorker(threads=1)
    resident = []
    for settings in json.load(sys.stdin):
        try:
            worker.run(settings)
        except WorkerError as exc:
            sys.stderr.write(f"{exc}\n")
        worker.tidy()
        resident.append(resident_mb())
    json.dump(resident, sys.stdout)


if __name__ == "__main__":
    main()
