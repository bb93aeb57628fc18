"""Errors for people: what happened, where, and what to do next."""

# Exit codes are part of the interface; docs/cli.md lists them.
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_AUTH = 4
EXIT_NOT_FOUND = 5
EXIT_CONFLICT = 6
EXIT_INFEASIBLE = 7
EXIT_JOB_FAILED = 10
EXIT_JOB_STOPPED = 11
EXIT_INTERRUPTED = 130


class GcpctlError(Exception):
    """Something a person can act on.

    Attributes:
        message: What happened and where.
        hint: What to do next; may be empty.
        exit_code: The status the command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UnreachableError(GcpctlError):
    """A server did not answer. It says nothing about the jobs on it."""

    exit_code = EXIT_UNREACHABLE


class AuthError(GcpctlError):
    """A server answered and refused the token."""

    exit_code = EXIT_AUTH


class NotFoundError(GcpctlError):
    """A job, recipe or file that does not exist."""

    exit_code = EXIT_NOT_FOUND


class ConflictError(GcpctlError):
    """Something exists already, or is in a state that forbids the request."""

    exit_code = EXIT_CONFLICT


class JobExistsError(ConflictError):
    """A job of that name exists."""


class InfeasibleError(GcpctlError):
    """A request that the cluster can never satisfy."""

    exit_code = EXIT_INFEASIBLE


class ApiError(GcpctlError):
    """A server answered with an error that has no better name.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, message: str, *, status: int, text: str) -> None:
        super().__init__(message)
        self.status = status
        self.text = text
