"""The cluster that a command talks to."""

import contextlib
from dataclasses import dataclass
from functools import cached_property

from cluster.profiles import Profile, load_profile
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.ray_jobs import RayJobs
from orchestrator.jobs.store import JobStore


@dataclass(frozen=True)
class Session:
    """A profile with its two stores, opened on use."""

    profile: Profile

    @cached_property
    def store(self) -> JobStore:
        """The job store."""
        return JobStore.of(self.profile)

    @cached_property
    def ray(self) -> RayJobs:
        """The Jobs API."""
        return RayJobs.of(self.profile)

    def nudge(self) -> None:
        """Have the controller look at once; it would look by itself a little later."""
        if self.profile.nudge_path is not None:
            with contextlib.suppress(OSError):
                self.profile.nudge_path.touch()


def connect() -> Session:
    """Return a session with the configured cluster.

    Raises:
        UnreachableError: No cluster was ever brought up here.
    """
    profile = load_profile()
    if profile is None:
        raise UnreachableError(
            "there is no cluster here yet",
            "start one with: gcpctl cluster up, or by submitting a first job: "
            "gcpctl submit train digits_resnet_isqrt --follow",
        )
    return Session(profile)
