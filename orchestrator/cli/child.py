"""Questions to a child process that may import torch: the terminal itself does not."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from orchestrator.jobs.errors import GcpctlError


def ask_models(verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `python -m workloads.models` answers; see `ask`."""
    return ask("workloads.models", verb, request)


def ask(module: str, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `python -m <module>` answers.

    It has no time limit; Ctrl-C ends both processes.

    Args:
        module: `workloads.models`, `workloads.evaluation` or `workloads.training.describe`.
        verb: One of the `VERBS` in its `__main__`.
        request: What the verb takes; must be JSON.

    Raises:
        GcpctlError: The child's own error for people, with its exit code; or the end of what it
            said before it died.
    """
    # -P: a folder named `workloads` or `torch` where the user stands is not ours.
    # The request goes through stdin, because the system limits arguments.
    command = [sys.executable, "-P", "-m", module, verb, "-"]
    done = subprocess.run(
        command,
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        said: dict[str, Any] = json.loads(done.stdout)
        if "error" not in said:
            answer: dict[str, Any] = said["answer"]
            return answer
        error = said["error"]
        raise GcpctlError(error["message"], error["hint"], exit_code=error["exit_code"])
    raise GcpctlError(
        *_obituary(f"{module.rpartition('.')[2]} {verb}", done.returncode, done.stderr)
    )


def _obituary(what: str, code: int, stderr: str) -> tuple[str, str]:
    """Say how a child ended that left no answer."""
    lines = stderr.strip().splitlines()
    if code < 0:
        why = f"was killed by signal {-code}"
        hint = "signal 9 often means that the machine ran out of memory" if code == -9 else ""
    else:
        why, hint = f"ended with code {code}", "this is a defect; please report it with the above"
    said = "".join(f"\n  {line}" for line in lines[-15:])
    return f"the process that works out `{what}` {why}{':' if said else ''}{said}", hint
