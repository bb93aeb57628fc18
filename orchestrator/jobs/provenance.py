"""Where a job came from: who, which command, which commit, which uncommitted changes."""

import getpass
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DIFF_LIMIT = 2_000_000


@dataclass(frozen=True)
class Provenance:
    """Who submitted a job, by which command, on which state of the code."""

    user: str
    command: str
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff: str = ""

    def tags(self) -> dict[str, str]:
        """Return MLflow's own tags for these facts."""
        tags = {
            "mlflow.user": self.user,
            "mlflow.source.name": "gcpctl",
            "mlflow.source.type": "PROJECT",
        }
        if self.commit:
            tags |= {
                "mlflow.source.git.commit": self.commit,
                "mlflow.source.git.branch": self.branch,
                "mlflow.source.git.dirty": str(self.dirty).lower(),
            }
        return tags


def collect(argv: list[str]) -> Provenance:
    """Look at the code that is installed; outside a git checkout the commit stays empty."""
    root = Path(__file__).resolve().parents[2]
    user, command = _user(), shlex.join(["gcpctl", *argv])
    if not (root / ".git").exists():
        return Provenance(user=user, command=command)
    commit = _git(root, "rev-parse", "HEAD")
    diff = _git(root, "diff", "--no-ext-diff", "--no-color", "HEAD") if commit else ""
    return Provenance(
        user=user,
        command=command,
        commit=commit,
        branch=_git(root, "rev-parse", "--abbrev-ref", "HEAD") if commit else "",
        dirty=bool(_git(root, "status", "--porcelain", "--untracked-files=normal")),
        diff=diff[:_DIFF_LIMIT],
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return "unknown"


def _git(root: Path, *args: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *args],
            capture_output=True,
            text=True,
            errors="replace",  # a diff may hold bytes of any encoding
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.rstrip("\n") if answer.returncode == 0 else ""
