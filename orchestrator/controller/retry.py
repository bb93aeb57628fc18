"""What follows when an attempt has ended without a final state. Pure."""

from dataclasses import dataclass
from typing import Any

_FIRST_DELAY_S = 1
_SECOND_DELAY_S = 10
_LONGEST_DELAY_S = 360


@dataclass(frozen=True)
class Retry:
    """Queue the job again, not before `delay_s` from now."""

    delay_s: int
    reason: str


@dataclass(frozen=True)
class Resize:
    """Queue the job again at once: it saved and ended to have more workers."""

    reason: str


@dataclass(frozen=True)
class Close:
    """The job is over: failed, or stopped as somebody asked."""

    stopped: bool
    reason: str


def backoff_s(retry: int) -> int:
    """Seconds before the given retry (1 is the first): at once, then 10 s doubling to 6 min."""
    if retry <= 1:
        return _FIRST_DELAY_S
    return int(min(_SECOND_DELAY_S * 2 ** (retry - 2), _LONGEST_DELAY_S))


def judge(
    outcome: dict[str, Any],
    ray_message: str,
    *,
    retries_used: int,
    max_retries: int,
    stop: bool,
    resize: bool = False,
) -> Retry | Resize | Close:
    """Decide on an attempt whose driver is gone.

    Args:
        outcome: What the driver wrote about its end; empty if it was killed.
        ray_message: What Ray says about its end.
        retries_used: Retries made since the job last got ahead.
        max_retries: Retries allowed.
        stop: Whether a stop was asked for.
        resize: Whether the attempt was asked to end for one with more workers.
    """
    kind = outcome.get("class", "infrastructure")
    reason = outcome.get("reason") or ray_message or "the driver is gone"
    stopped = outcome.get("outcome") == "stopped"
    if stop and (stopped or kind == "infrastructure"):
        return Close(stopped=True, reason=outcome.get("reason") or "stopped on request")
    if stopped and resize:
        return Resize(reason=reason)
    if stopped:
        # A signal that nobody here sent: a machine going down, or its operator.
        reason = "the system ended the driver; " + reason
    if kind == "user":
        return Close(stopped=False, reason=reason)
    if kind == "storage":
        remedy = "" if "gcpctl retry" in reason else "; free space, then: gcpctl retry JOB"
        return Close(stopped=False, reason=reason + remedy)
    if retries_used >= max_retries:
        return Close(
            stopped=False, reason=f"{reason} (after {retries_used} retries without progress)"
        )
    return Retry(delay_s=backoff_s(retries_used + 1), reason=reason)
