"""The control loop between two stores in memory."""

from orchestrator.controller.reconcile import step
from orchestrator.controller.waited_for import WaitedFor
from orchestrator.jobs.job import TAG_BEGUN
from orchestrator.jobs.states import State
from tests.fakes import FakeRay, FakeStore, make_spec


class World:
    """Both stores, a clock, what the controller remembers, and the archived logs."""

    def __init__(self, cpus: float = 4) -> None:
        self.store, self.ray, self.now_ms = FakeStore(), FakeRay(cpus), 100_000
        self.waited_for = WaitedFor()
        self.archived: list[tuple[str, int]] = []

    def step(self, seconds: float = 1):
        self.now_ms += int(seconds * 1000)
        report = step(
            self.store,  # type: ignore[arg-type]
            self.ray,
            lambda job: self.archived.append((job.job_id, job.attempt)),
            self.now_ms,
            self.waited_for,
        )
        return list(report.events)

    def job(self, name: str):
        return self.store.find_exact(name)

    def submit(self, name: str, *, tags=None, **fields) -> str:
        self.now_ms += 1
        return self.store.add(make_spec(name, **fields), submitted_ms=self.now_ms, tags=tags or {})

    def tags(self, name: str) -> dict[str, str]:
        """The tags of a job, to be changed."""
        return self.store.runs[self.job(name).run_id]["tags"]

    def finish(self, name: str) -> None:
        """Close a job as its driver does."""
        self.store.runs[self.job(name).run_id]["state"] = State.FINISHED

    def begin(self, name: str) -> None:
        """Have a driver take up a job that it was handed."""
        self.tags(name)[TAG_BEGUN] = str(self.job(name).attempt)
