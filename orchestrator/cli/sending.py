"""The second half of every `submit`: check against the cluster, record, follow."""

import sys
from pathlib import Path
from typing import TypeVar

from cluster import local
from cluster.profiles import Profile, load_profile
from orchestrator.cli.follow import follow
from orchestrator.cli.output import answer, program, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs import plan as planning
from orchestrator.jobs.errors import ConflictError, GcpctlError, JobExistsError
from orchestrator.jobs.job import Job
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.provenance import Provenance, collect
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.submit import attach_provenance, record
from workloads.config.document import dump_document

_P = TypeVar("_P", planning.Plan, EvalPlan)


class Target:
    """Where a job will go: a configured cluster, or the embedded one of this machine."""

    def __init__(self) -> None:
        self.profile: Profile | None = load_profile()
        self.is_local = self.profile is None or self.profile.nudge_path is not None

    @property
    def folder(self) -> Path | None:
        """Where relative paths begin; None where the cluster sees other folders than we do."""
        return Path.cwd() if self.is_local else None

    def exact_ids(self, after: tuple[str, ...], name: str | None) -> tuple[str, ...]:
        """Return the full ids of the jobs to wait for; each must exist now."""
        if not after:
            return ()
        store = connect().store
        found = tuple(store.find(part).job_id for part in after)
        if name in found:
            raise ConflictError(f"{name} cannot run after itself")
        return found

    def bring_up(self) -> Profile:
        """Return the cluster's profile, once the embedded one is up where none is configured."""
        if self.is_local:
            self.profile = local.up(say=talk)
        assert self.profile is not None
        return self.profile

    def check_machine(self, plan: planning.Plan | EvalPlan) -> None:
        """Refuse what this machine could never hold, before its cluster is brought up."""
        if self.is_local:
            cpus, gpus = local.plan_resources()
            nodes = [Node(cpus=cpus, gpus=gpus)]
            planning.check_feasible(plan.spec.resources, nodes, where="this machine")


def show_plan(plan: planning.Plan | EvalPlan) -> None:
    """Print what `--dry-run` promises."""
    answer(f"# {plan.spec.job_id}: {plan.spec.resources.describe()}, study {plan.spec.study}")
    answer(f"# config sha256 {plan.config_sha256}")
    answer(dump_document(plan.spec.config).rstrip())
    talk("nothing was submitted")


def send(target: Target, plan: _P, *, chosen: bool, follow_: bool) -> None:
    """Record a plan as a job, bringing up the embedded cluster first where none is configured.

    Args:
        chosen: Whether the person chose the job's name; one that was made up is changed if taken.
        follow_: Show progress until the job ends, and end with the exit code of that.
    """
    session = Session(target.bring_up())
    planning.check_feasible(plan.spec.resources, session.ray.nodes(), where="the cluster")
    provenance = collect(sys.argv[1:])
    job, plan = _record(session, plan, provenance, chosen=chosen)
    session.nudge()
    talk(f"submitted {job.job_id}: {plan.spec.resources.describe()}; this terminal may be closed")
    try:
        attach_provenance(session.store, job, plan, provenance)
    except GcpctlError as exc:
        talk(f"the job runs, but its config.yaml or diff could not be stored: {exc.message}")
    if follow_:
        sys.exit(follow(session, job))
    answer(job.job_id)
    for command in (f"status {job.job_id}", f"logs {job.job_id} -f", "ui"):
        talk(f"  {program()} {command}")


def _record(session: Session, plan: _P, provenance: Provenance, *, chosen: bool) -> tuple[Job, _P]:
    """Record the job; draw another id in the rare case that the one made up is taken."""
    while True:
        try:
            job = record(session.store, plan, provenance, cluster=session.profile.name)
            return job, plan
        except JobExistsError:
            if chosen:
                raise
            plan = plan.with_new_id()
        except KeyboardInterrupt:
            talk(f"\ninterrupted; if it was recorded already: gcpctl stop {plan.spec.job_id}")
            raise
