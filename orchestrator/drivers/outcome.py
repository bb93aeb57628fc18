"""How an attempt ended, as its driver saw it."""

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_REASON_LIMIT = 1500
"""Characters; a tag of MLflow takes 8000, and JSON may double some."""
_CUT = " … (more in the log)"


@dataclass(frozen=True)
class Outcome:
    """The last word of an attempt.

    Attributes:
        kind: What happened.
        failure_class: `user` is never retried, `infrastructure` is, `storage` waits for a
            person, `fenced` means that a newer attempt has taken over.
        reason: For people; lists show its first line, `gcpctl status JOB` all.
        tags: What else is recorded with the job.
    """

    kind: Literal["finished", "stopped", "failed"]
    reason: str
    failure_class: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def failed(cls, failure_class: str, reason: str) -> "Outcome":
        """Return the outcome of a failure of the given class."""
        if len(reason) > _REASON_LIMIT:
            reason = reason[: _REASON_LIMIT - len(_CUT)].rstrip() + _CUT
        return cls(kind="failed", failure_class=failure_class, reason=reason)

    def to_json(self) -> str:
        """Return the text of the outcome tag."""
        fields = {"outcome": self.kind, "reason": self.reason}
        fields |= {"class": self.failure_class} if self.failure_class else {}
        return json.dumps(fields, ensure_ascii=False)

    def describe(self) -> str:
        """Return a line for the log."""
        kind = f"{self.kind} ({self.failure_class})" if self.failure_class else self.kind
        return f"{kind}: {self.reason}" if self.reason else kind


def say(text: str) -> None:
    """Write a line to the job's log. A disk too full for it must not end anything."""
    with contextlib.suppress(OSError):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
