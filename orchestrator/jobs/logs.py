"""The form of a job's log: one file per attempt, each worker's lines marked with its rank.

A driver that runs several jobs writes one log. A line in front of each attempt and one behind it
say whose lines are between them; `LogSlice` gives out those of one attempt.
"""

import re
from collections.abc import Iterable, Iterator

_RANK = re.compile(r"\[rank (\d+)\] ")
_SECTION = re.compile(r"=== (?P<end>end of )?(?P<job>\S+), attempt (?P<attempt>\d+) ===")


def artifact_name(attempt: int) -> str:
    """Return where the log of an attempt is kept among the job's artifacts."""
    return f"logs/attempt-{attempt}.log"


def mark(rank: int, line: str) -> str:
    """Return a worker's line as it stands in the log."""
    return f"[rank {rank}] {line}"


def of_rank(lines: Iterable[str], rank: int | None) -> Iterator[str]:
    """Yield the lines of one worker, without their mark; all lines for None."""
    for line in lines:
        if rank is None:
            yield line
            continue
        match = _RANK.match(line)
        if match and int(match.group(1)) == rank:
            yield line[match.end() :]


def begin_line(job_id: str, attempt: int) -> str:
    """Return the line in front of an attempt's lines in a log that jobs share."""
    return f"=== {job_id}, attempt {attempt} ==="


def end_line(job_id: str, attempt: int) -> str:
    """Return the line behind them."""
    return f"=== end of {job_id}, attempt {attempt} ==="


class LogSlice:
    """The lines of one attempt in a driver's log, which other jobs may share.

    A log without any section is of one job alone, and so is what comes before the first section:
    both belong to the attempt that the driver was started for.

    Args:
        job_id: The job.
        attempt: Its attempt.
        is_own: Whether the driver was started for this attempt.

    Attributes:
        has_ended: Whether the line behind the attempt's lines has been seen.
    """

    def __init__(self, job_id: str, attempt: int, *, is_own: bool) -> None:
        self._wanted = (job_id, attempt)
        self._inside = is_own
        self._rest = ""
        self.has_ended = False

    def feed(self, text: str) -> str:
        """Take up the next piece of the log; return the attempt's complete lines in it."""
        *lines, self._rest = (self._rest + text).split("\n")
        return "".join(f"{line}\n" for line in lines if self._is_mine(line))

    def close(self) -> str:
        """Return the line that was cut off at the end, if it is the attempt's."""
        rest, self._rest = self._rest, ""
        return rest if rest and self._is_mine(rest) else ""

    def _is_mine(self, line: str) -> bool:
        section = _SECTION.fullmatch(line)
        if section is None:
            return self._inside
        here = (section["job"], int(section["attempt"])) == self._wanted
        self._inside = here and not section["end"]
        self.has_ended |= here and bool(section["end"])
        return False


def slice_log(text: str, job_id: str, attempt: int, *, is_own: bool) -> str:
    """Return the lines of one attempt in a whole log; see `LogSlice`."""
    wanted = LogSlice(job_id, attempt, is_own=is_own)
    return wanted.feed(text) + wanted.close()
