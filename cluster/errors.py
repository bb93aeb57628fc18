"""The error this package raises for people."""

from __future__ import annotations

UNREACHABLE = 3
AUTHENTICATION = 4
NOT_FOUND = 5
CONFLICT = 6


class ClusterError(Exception):
    """Say what happened and where, and what to do about it.

    Args:
        message: What happened, with the path, port or address it happened at.
        hint: What to do next; may be empty.
        exit_code: 3 unreachable or not startable, 4 authentication, 5 no such
            profile, 6 conflict.
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = UNREACHABLE) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
