"""The states of a job are MLflow's run states; nothing is invented."""

from enum import StrEnum


class State(StrEnum):
    """State of a job, as MLflow stores and shows it."""

    SCHEDULED = "SCHEDULED"
    """Queued: no attempt of it is alive."""
    RUNNING = "RUNNING"
    """An attempt was launched and has not been closed."""
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    """Stopped on request, by its time limit or with a job it waited for."""

    @property
    def is_final(self) -> bool:
        """Whether only a person can move the job from here (`gcpctl retry`)."""
        return self in FINAL


FINAL = frozenset({State.FINISHED, State.FAILED, State.KILLED})
ACTIVE = frozenset(State) - FINAL

_NEXT = {
    State.SCHEDULED: frozenset({State.RUNNING, State.FAILED, State.KILLED}),
    State.RUNNING: frozenset({State.SCHEDULED, State.FINISHED, State.FAILED, State.KILLED}),
    State.FINISHED: frozenset[State](),
    State.FAILED: frozenset({State.SCHEDULED}),
    State.KILLED: frozenset({State.SCHEDULED}),
}


def may_become(current: State, wanted: State) -> bool:
    """Whether the store may move a job from `current` to `wanted`.

    FAILED and KILLED lead back to SCHEDULED because a person may ask for that; no part of the
    system does it by itself.
    """
    return wanted in _NEXT[current]
