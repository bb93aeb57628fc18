"""`ray start` with what this cluster never uses left out. Runs once per head, then exits.

Two private names of Ray 2.60 are replaced, both only to start less; when a name is gone, the
head starts in full and costs more memory, nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

# NodeHead stores the head's node id, without which JobHead finds no agent; StateHead answers
# /api/v0/*. Left out: metrics, Serve, Data, Train, events, reporter, usage.
DASHBOARD_MODULES = "JobHead,NodeHead,StateHead"


def main(arguments: list[str]) -> None:
    """Start the head's processes and return when they run."""
    from ray._private import services
    from ray.scripts import scripts

    start_process = getattr(services, "start_ray_process", None)
    if start_process is not None:

        def start_less(command: list[str], process_type: str, *rest: Any, **options: Any) -> Any:
            if process_type == "dashboard":
                command = [*command, f"--modules-to-load={DASHBOARD_MODULES}"]
            return start_process(command, process_type, *rest, **options)

        services.start_ray_process = start_less
    if hasattr(scripts, "get_ray_client_dependency_error"):
        scripts.get_ray_client_dependency_error = lambda: "the Ray client server is not used"
    scripts.start.main(args=arguments, standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1:])
