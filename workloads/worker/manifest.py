"""The page in a checkpoint that says what must be there, down to the last bit."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads.worker.failures import CheckpointError

MANIFEST_FILE = "MANIFEST.json"
STATE_FILE = "state.pt"
FORMAT = "gcpctl-checkpoint"
VERSION = 1


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Manifest:
    """What one checkpoint holds.

    Attributes:
        is_best: Whether it had the best validation result when it was saved.
        score: Its validation result, the higher the better; None without one.
        classes: What the outputs of its network are called, in their order; None where it does not
            say. So it is known without reading the state.
    """

    step: int
    attempt: int
    is_best: bool
    state_bytes: int
    state_sha256: str
    score: float | None = None
    classes: tuple[str, ...] | None = None

    def to_json(self) -> bytes:
        """Return the manifest's file; it carries a digest of itself."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "attempt": self.attempt,
            "is_best": self.is_best,
            "score": self.score,
            "classes": self.classes,
            "files": {STATE_FILE: {"bytes": self.state_bytes, "sha256": self.state_sha256}},
        }
        return json.dumps({**body, "manifest_sha256": _digest(body)}, indent=1).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a checkpoint, without a look at the other files.

    Raises:
        DamagedError: It is missing, torn, altered or another program's.
        CheckpointError: It is sound but of a newer format than this code knows.
    """
    try:
        body = json.loads((folder / MANIFEST_FILE).read_bytes())
        own_digest = body.pop("manifest_sha256")
    except FileNotFoundError:
        raise DamagedError(f"{MANIFEST_FILE} is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{MANIFEST_FILE} is torn or of another program") from None
    if own_digest != _digest(body) or body.get("format") != FORMAT:
        raise DamagedError(f"{MANIFEST_FILE} was altered or is of another program")
    if body["version"] != VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has format {body['version']}, this gcpctl reads format "
            f"{VERSION}; resume with the newer gcpctl that wrote it"
        )
    state = body["files"][STATE_FILE]
    classes = body.get("classes")  # manifests of before it and the score were noted stay readable
    return Manifest(
        step=body["step"],
        attempt=body["attempt"],
        is_best=body["is_best"],
        state_bytes=state["bytes"],
        state_sha256=state["sha256"],
        score=body.get("score"),
        classes=None if classes is None else tuple(classes),
    )


def verify_state(folder: Path, manifest: Manifest) -> None:
    """Read the state back and compare size and digest.

    Raises:
        DamagedError: It is missing or differs.
    """
    path = folder / STATE_FILE
    try:
        size = path.stat().st_size
        if size != manifest.state_bytes:
            raise DamagedError(f"{STATE_FILE} has {size} bytes of {manifest.state_bytes}")
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256")
    except FileNotFoundError:
        raise DamagedError(f"{STATE_FILE} is missing") from None
    if digest.hexdigest() != manifest.state_sha256:
        raise DamagedError(f"{STATE_FILE} differs from its SHA-256")


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
