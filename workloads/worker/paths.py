"""Where a job keeps its files. The one place that knows their names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class JobPaths:
    """The files of one job under ``<storage_path>/<job_id>``.

    Attributes:
        root: The job's folder; its name is the job's id. Every rank and the driver see it.
    """

    root: Path

    @property
    def job_id(self) -> str:
        """The job's id, which is the folder's name."""
        return self.root.name

    @property
    def owner(self) -> Path:
        """Who may commit: ``{"attempt", "host", "pid", "started_ms"}``."""
        return self.root / "OWNER"

    @property
    def owner_lock(self) -> Path:
        """Held while the owner changes and while something is committed in its name."""
        return self.root / "OWNER.lock"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, one folder per step."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """Names the checkpoint with the best validation result: ``{"step": n}``."""
        return self.checkpoints / "best.json"

    @property
    def spool(self) -> Path:
        """Metrics on their way to the tracking server, one JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        """The newest progress, for people; replaced about twice a second."""
        return self.root / "progress.json"

    @property
    def first_step(self) -> Path:
        """When the newest attempt finished its first optimizer step."""
        return self.root / "first_step.json"

    @property
    def stop(self) -> Path:
        """Its presence asks the training to save and leave."""
        return self.root / "STOP"

    @property
    def result(self) -> Path:
        """What the training came to; written once at its end."""
        return self.root / "result.json"

    @property
    def evaluation(self) -> Path:
        """The folder of what an evaluation writes."""
        return self.root / "evaluation"

    def failure(self, attempt: int) -> Path:
        """Why an attempt failed."""
        return self.root / f"failure-{attempt}.json"
