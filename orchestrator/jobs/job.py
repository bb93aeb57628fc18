"""What the store gives back: a job as it stands now. Imports nothing heavy; `status` uses it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.ids import submission_id
from orchestrator.jobs.states import State

if TYPE_CHECKING:
    from orchestrator.jobs.spec import JobSpec, Resources

PREFIX = "gcpctl."
# Desired state, written by the terminal.
TAG_JOB_ID = PREFIX + "job_id"
TAG_KIND = PREFIX + "kind"
TAG_SPEC = PREFIX + "spec"
TAG_QUEUE_KEY = PREFIX + "queue_key"
TAG_PRIORITY = PREFIX + "priority"
TAG_STOP = PREFIX + "stop_requested"
TAG_CHECKPOINT = PREFIX + "checkpoint"
"""What an evaluation judges, such as `train-x7:best`."""
TAG_EVALUATED = PREFIX + "evaluated_job"
"""The job that trained what an evaluation judges."""
TAG_RUN_NAME = "mlflow.runName"
TAG_PARENT = "mlflow.parentRunId"
"""The run of the study or sweep that a job belongs to; MLflow's own, which nests the rows."""
TAG_GROUP = PREFIX + "group"
"""The study or sweep that a job was made for, by its job id."""
TAG_CELL = PREFIX + "cell"
"""What sets a job apart within its group, seeds aside, such as `pooling=isqrt`."""
TAG_BASELINE = PREFIX + "baseline"
"""`true` on the jobs that the others of their group are compared with."""
TAG_BASELINE_CELL = PREFIX + "baseline_cell"
"""On a study: the cell that the others are compared with."""
TAG_SUBMITTED = PREFIX + "submitted"
"""On a study: `true` once all its jobs are recorded; before that it may not conclude."""
TAG_CONFIG = PREFIX + "config_sha256"
"""Digest of the resolved config: equal digests ask for equal work."""
TAG_SEED = PREFIX + "seed"
# Observed state, written by the controller.
TAG_ATTEMPT = PREFIX + "attempt"
TAG_PHASE = PREFIX + "phase"
TAG_REASON = PREFIX + "reason"
TAG_NOT_BEFORE = PREFIX + "not_before_ms"
TAG_LAUNCHED = PREFIX + "first_launch_ms"
TAG_LAUNCHING = PREFIX + "launching"
"""The attempt that is recorded but that Ray has not been seen to know; empty otherwise."""
TAG_STOP_SENT = PREFIX + "stop_sent"
"""The attempt that was told to stop."""
TAG_WORKERS = PREFIX + "workers"
"""Number of workers of the newest attempt."""
TAG_ATTEMPT_LAUNCHED = PREFIX + "attempt_launch_ms"
TAG_HOST = PREFIX + "shared_driver"
"""The Ray submission id of the driver that runs the newest attempt; empty for one of its own."""
TAG_MEMBERS = PREFIX + "members"
"""How many jobs a study waits for in all."""
TAG_COUNTED = PREFIX + "counted_ms"
"""When it was last said how many of them are done, or a submit began to record them again."""
TAG_RESIZE = PREFIX + "resize"
"""The attempt that was asked to save and end, so that the next one has more workers."""
TAG_RETRIES = PREFIX + "retries"
"""`{"used": retries since the last progress, "epoch": epochs completed then}`."""
# Observed state, written by the driver of the attempt.
TAG_PROGRESS = PREFIX + "progress"
TAG_RESULT = PREFIX + "result"
TAG_BEGUN = PREFIX + "begun"
"""The attempt that a shared driver has begun; one it was only handed lost nothing with it."""

# Of the trials of a sweep, written by its driver.
TAG_TRIAL = PREFIX + "trial"
"""The trial's number, from 0."""
TAG_VALUES = PREFIX + "values"
"""What the search chose, as JSON: key of the config -> value."""
TAG_PRUNED = PREFIX + "pruned"
"""`true` on trials that the scheduler ended early."""

STUDY = "ablation"
"""Kind of a job that stands for a study: its members do the work, it reports."""
DUPLICATE = "duplicate"
"""Phase of a run that was closed because another of its name was there."""
TRIAL = "trial"
"""Kind of a run that a sweep's driver makes and ends by itself."""
EVALUATION = "evaluation"
"""Folder of an evaluation's files among the job's artifacts."""


def outcome_tag(attempt: int) -> str:
    """Tag with how an attempt ended, as its driver saw it."""
    return f"{PREFIX}outcome.{attempt}"


def verdict_tag(attempt: int) -> str:
    """Tag with what the controller made of an attempt's end."""
    return f"{PREFIX}verdict.{attempt}"


def member_tag(group: str) -> str:
    """Tag of every job whose result a study uses, its own and those of others; value: the cell.

    A job has one group, the one that it was made for, and may be a member of many.
    """
    return f"{PREFIX}in.{group}"


def precedence(job: "Job") -> tuple[bool, bool, int, str]:
    """Sort runs of one name: the job itself comes first, what was closed as its duplicate last."""
    return job.phase == DUPLICATE, not job.attempt, job.start_ms, job.run_id


def queue_key(priority: int, submitted_ms: int) -> str:
    """Return text that sorts by priority (higher first), then by submission."""
    return f"{5000 - priority:05d}-{submitted_ms:013d}"


@dataclass(frozen=True)
class Job:
    """One MLflow run that is a job."""

    run_id: str
    experiment_id: str
    state: State
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    start_ms: int
    end_ms: int | None
    artifact_uri: str

    @classmethod
    def from_run(cls, run: dict[str, Any]) -> "Job":
        """Read a run as MLflow's REST API gives it."""
        info, data = run["info"], run["data"]
        state = State(info["status"])
        return cls(
            run_id=info["run_id"],
            experiment_id=info["experiment_id"],
            state=state,
            tags={tag["key"]: tag["value"] for tag in data.get("tags", ())},
            metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", ())},
            start_ms=int(info["start_time"]),
            # MLflow keeps the end of an earlier life when a person asks for a retry.
            end_ms=int(info["end_time"]) if state.is_final and info.get("end_time") else None,
            artifact_uri=info["artifact_uri"],
        )

    @property
    def job_id(self) -> str:
        """The job's one name; a trial, which no controller moves, has only that of its run."""
        return self.tags.get(TAG_JOB_ID) or self.tags.get(TAG_RUN_NAME, self.run_id)

    @property
    def kind(self) -> str:
        """`train`, `eval`, `ablation` or `tune`."""
        return self.tags.get(TAG_KIND, "")

    @property
    def attempt(self) -> int:
        """Number of the newest attempt; 0 before the first launch."""
        return int(self.tags.get(TAG_ATTEMPT, "0"))

    @property
    def is_launching(self) -> bool:
        """Whether the newest attempt may not have reached Ray yet."""
        return self.attempt > 0 and self.tags.get(TAG_LAUNCHING) == str(self.attempt)

    @property
    def epoch(self) -> int:
        """Epochs completed and saved."""
        return int(self.metrics.get("progress/epoch", 0))

    @property
    def num_workers(self) -> int:
        """Workers of the newest attempt; before the first, the most that are asked for."""
        return int(self.tags.get(TAG_WORKERS) or self.raw_spec["resources"]["num_workers"])

    @property
    def pack(self) -> str:
        """The pack that it shares a driver with; empty for a job that keeps its driver to itself.

        Only one worker can be kept from one job to the next, and it must not change its number.
        """
        spec = self.spec
        return spec.pack if spec.resources.num_workers == 1 and len(spec.worker_counts) <= 1 else ""

    @property
    def gang(self) -> "Resources":
        """What the newest attempt holds."""
        return self.spec.resources.with_workers(self.num_workers)

    @property
    def submission_id(self) -> str:
        """What Ray knows the newest attempt's driver by; several jobs may share one."""
        return self.tags.get(TAG_HOST) or submission_id(self.job_id, self.attempt)

    @property
    def has_begun(self) -> bool:
        """Whether its driver has taken up the newest attempt, not only been handed it."""
        return not self.tags.get(TAG_HOST) or self.tags.get(TAG_BEGUN) == str(self.attempt)

    @property
    def group(self) -> str:
        """The study or sweep that it was made for; empty for a job of its own."""
        return self.tags.get(TAG_GROUP, "")

    @property
    def cell(self) -> str:
        """What sets it apart within its group, seeds aside."""
        return self.tags.get(TAG_CELL, "")

    @property
    def seed(self) -> int | None:
        """The seed of a training."""
        text = self.tags.get(TAG_SEED, "")
        return int(text) if text.isdigit() else None

    @property
    def attempt_launch_ms(self) -> int:
        """When the newest attempt was launched; 0 where that was not recorded."""
        return int(self.tags.get(TAG_ATTEMPT_LAUNCHED, "0") or 0)

    @property
    def is_resizing(self) -> bool:
        """Whether the newest attempt was asked to end for one with more workers."""
        return self.attempt > 0 and self.tags.get(TAG_RESIZE) == str(self.attempt)

    @property
    def retries_used(self) -> int:
        """Retries since the job last completed an epoch; progress earns new ones."""
        record = self.read_json(TAG_RETRIES)
        return int(record.get("used", 0)) if self.epoch <= record.get("epoch", 0) else 0

    @property
    def priority(self) -> int:
        """The priority in force; the spec holds the one first asked for."""
        return int(self.tags.get(TAG_PRIORITY, "0"))

    @property
    def phase(self) -> str:
        """A word for people on what is going on."""
        return self.tags.get(TAG_PHASE, "")

    @property
    def reason(self) -> str:
        """Why the job waits, or why it ended as it did."""
        return self.tags.get(TAG_REASON, "")

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked for a stop since the job was last queued."""
        return bool(self.tags.get(TAG_STOP))

    @property
    def not_before_ms(self) -> int:
        """Earliest time of the next attempt."""
        return int(self.tags.get(TAG_NOT_BEFORE, "0") or 0)

    @property
    def first_launch_ms(self) -> int:
        """When the first attempt was launched; 0 before."""
        return int(self.tags.get(TAG_LAUNCHED, "0") or 0)

    @cached_property
    def raw_spec(self) -> dict[str, Any]:
        """The spec as plain JSON; enough to show it."""
        return dict(json.loads(self.tags[TAG_SPEC]))

    @cached_property
    def spec(self) -> "JobSpec":
        """The spec, validated."""
        from orchestrator.jobs.spec import JobSpec

        return JobSpec.model_validate(self.raw_spec)

    @cached_property
    def progress(self) -> dict[str, Any]:
        """What the workers said last; empty before the first word."""
        return self.read_json(TAG_PROGRESS)

    @cached_property
    def result(self) -> dict[str, Any]:
        """What a finished job found; empty before."""
        return self.read_json(TAG_RESULT)

    def outcome(self, attempt: int) -> dict[str, Any]:
        """How an attempt ended as its driver saw it; empty when it could not say."""
        return self.read_json(outcome_tag(attempt))

    def verdict(self, attempt: int) -> dict[str, Any]:
        """What the controller made of an attempt's end; empty if nothing needed saying."""
        return self.read_json(verdict_tag(attempt))

    def read_json(self, tag: str) -> dict[str, Any]:
        """Return a tag's JSON object; empty when it is missing or damaged."""
        try:
            value = json.loads(self.tags.get(tag) or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}
