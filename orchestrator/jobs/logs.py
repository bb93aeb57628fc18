"""The form of a job's log: one file per attempt, each worker's lines marked with its rank."""

import re
from collections.abc import Iterable, Iterator

_RANK = re.compile(r"\[rank (\d+)\] ")


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
