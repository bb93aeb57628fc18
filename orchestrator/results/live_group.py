"""The jobs of a study, or the trials of a sweep, looked at again and again at little cost.

Reading a run costs the tracking server milliseconds, and a study may have hundreds; most of them
wait or are over. After the first look only those are read again that run or have just ended.
"""

import time
from collections.abc import Callable

from orchestrator.jobs.job import TAG_SUBMITTED, Job
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore

_WHOLE_EVERY_S = 60.0
"""Between looks at all of them: what was queued again or has joined shows up by then."""
_SKEW_MS = 5_000
"""By how much the clocks of those that end jobs may differ."""


class LiveGroup:
    """What belongs to a study or a sweep, as it stands.

    Args:
        group: The study's or sweep's own job.
        clock: Seconds that only grow.
    """

    def __init__(
        self, store: JobStore, group: Job, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._clock = store, clock
        self._is_sweep = group.kind == "tune"
        self._known: dict[str, Job] = {}
        self._whole_at = float("-inf")
        self._experiments = [group.experiment_id]
        self._seen = ("", group.state)

    def look(self, group: Job) -> list[Job]:
        """Return all that belongs to the group, oldest first.

        Args:
            group: The study's or sweep's own job as it is now; when it moves, everything is read.
        """
        now, seen = self._clock(), (group.tags.get(TAG_SUBMITTED, ""), group.state)
        if now - self._whole_at >= _WHOLE_EVERY_S or seen != self._seen:
            found = self._read(group, "")
            self._known = {job.run_id: job for job in found}
            self._experiments = sorted({group.experiment_id, *(job.experiment_id for job in found)})
            self._whole_at, self._seen = now, seen
        else:
            self._renew(group)
        return list(self._known.values())

    def _renew(self, group: Job) -> None:
        """Read what runs, what has ended since, and what ran and does neither."""
        ran = {run_id for run_id, job in self._known.items() if job.state is State.RUNNING}
        ended = max((job.end_ms or 0 for job in self._known.values()), default=0)
        fresh = self._read(group, "attributes.status = 'RUNNING'")
        fresh += self._read(group, f"attributes.end_time > {max(ended - _SKEW_MS, 0)}")
        lost = ran - {job.run_id for job in fresh}
        fresh += [self._store.get(run_id) for run_id in sorted(lost)]
        self._known |= {job.run_id: job for job in fresh}

    def _read(self, group: Job, also: str) -> list[Job]:
        if self._is_sweep:
            # All trials of a sweep are in its own experiment; a study may use those of others.
            return self._store.trials(group.job_id, also=also, experiments=[group.experiment_id])
        experiments = self._experiments if also else None
        return self._store.members(group.job_id, also=also, experiments=experiments)
