"""The states of the jobs that others wait for, at a few requests a step however many wait."""

from collections.abc import Iterable, Mapping

from orchestrator.jobs.job import TAG_JOB_ID, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, safe_text

_MANY_RUNS = 200
"""Runs asked for in one request."""
_MOST_NEW = 25
"""Jobs looked up by name in one step; each takes a request, but only once."""


class WaitedFor:
    """Looks jobs up, and remembers what does not change: a job's run, and that it is FINISHED.

    It may be thrown away at any time; a new one asks again.
    """

    def __init__(self) -> None:
        self._finished: set[str] = set()
        self._runs: dict[str, str] = {}

    def states(
        self, store: JobStore, waiting: Iterable[Job], at_hand: Mapping[str, Job]
    ) -> dict[str, State | None]:
        """Return the state of every job that some job waits for; None for one that is not there.

        A job that was not looked up yet, because too many are new at once, counts as queued.

        Args:
            store: Where to look.
            waiting: Jobs that may wait for others.
            at_hand: The active jobs that were just read, by job id.
        """
        names = {name for job in waiting for name in job.spec.after}
        found: dict[str, State | None] = {}
        for name in sorted(names):
            if name in at_hand:
                found[name] = at_hand[name].state
                self._runs[name] = at_hand[name].run_id
            elif name in self._finished:
                found[name] = State.FINISHED
        if rest := sorted(names - set(found)):
            found |= self._ask(store, rest)
            self._finished |= {name for name in rest if found[name] is State.FINISHED}
        return found

    def _ask(self, store: JobStore, names: list[str]) -> dict[str, State | None]:
        experiments = list(store.experiments())
        seen: dict[str, Job] = {}
        known = [name for name in names if name in self._runs]
        for start in range(0, len(known), _MANY_RUNS):
            some = known[start : start + _MANY_RUNS]
            ids = ", ".join(f"'{safe_text(self._runs[name])}'" for name in some)
            where = f"attributes.run_id IN ({ids})"
            jobs = store.search(where, limit=len(some), experiments=experiments)
            seen |= {job.job_id: job for job in jobs}
        new = [name for name in names if name not in self._runs]
        for name in new[:_MOST_NEW]:
            where = f"tags.`{TAG_JOB_ID}` = '{safe_text(name)}'"
            oldest = ["attributes.start_time ASC"]
            jobs = store.search(where, limit=1, order_by=oldest, experiments=experiments)
            for job in jobs:
                seen[name], self._runs[name] = job, job.run_id
        found: dict[str, State | None] = {
            name: seen[name].state if name in seen else None for name in names
        }
        return found | dict.fromkeys(new[_MOST_NEW:], State.SCHEDULED)
