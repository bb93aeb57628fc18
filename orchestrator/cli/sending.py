"""The second half of every `submit`: check against the cluster, record, follow."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from cluster import local
from cluster.profiles import Profile, load_profile
from orchestrator.cli.child import ask
from orchestrator.cli.follow import follow
from orchestrator.cli.output import answer, program, talk
from orchestrator.cli.session import Session, connect
from orchestrator.jobs import plan as planning
from orchestrator.jobs.checkpoints import (
    find_checkpoint,
    parse_checkpoint,
    resolve_checkpoint,
)
from orchestrator.jobs.errors import ConflictError, GcpctlError, JobExistsError
from orchestrator.jobs.job import Job
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.plan_tune import TunePlan
from orchestrator.jobs.provenance import Provenance, collect
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.submit import attach_provenance, record
from workloads.config.document import dump_document
from workloads.worker.paths import JobPaths

_P = TypeVar("_P", planning.Plan, EvalPlan, TunePlan)

_MOST_LOOKS = 4
"""Different beginnings of a study's trainings that are looked into; each takes seconds."""


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

    def nodes(self) -> list[Node]:
        """Return the machines that jobs may use, of an embedded cluster also before it is up."""
        if not self.is_local:
            return connect().ray.nodes()
        cpus, gpus = local.plan_resources()
        return [Node(cpus=cpus, gpus=gpus)]

    def check_machine(self, plan: planning.Plan | EvalPlan | TunePlan) -> None:
        """Refuse what this machine could never hold, before its cluster is brought up."""
        if self.is_local:
            planning.check_feasible(plan.spec.resources, self.nodes(), where="this machine")


def weights_of(text: str, after: tuple[str, ...]) -> str:
    """Return where initial weights are; those of a file are where they are said to be.

    A checkpoint of a job's folder, as in `/storage/train-x7:best`, is looked for in what is there.

    Args:
        text: `init.weights` as written: a file, a job (`JOB`, `JOB:best`, `JOB:last`), or a URI
            of MLflow.
        after: Ids of the jobs that are waited for, which need not have saved anything yet.

    Raises:
        GcpctlError: A text of no known form, or no such job, checkpoint or artifact.
    """
    try:
        asked = parse_checkpoint(text)
    except GcpctlError as exc:  # its words are those of the option of other commands
        message = exc.message.replace("--checkpoint", "init.weights", 1)
        raise GcpctlError(message, exc.hint, exit_code=exc.exit_code) from None
    if asked.kind == "file" and asked.said and not Path(text).exists():
        folder = Path(os.path.expanduser(asked.name))
        if folder.name not in after and JobPaths(folder).checkpoints.is_dir():
            return str(find_checkpoint(folder, asked.which))
    if asked.kind == "file" or Path(text).exists():
        return text
    session = connect()
    return resolve_checkpoint(session.store, session.profile, text, may_wait=after).weights


def check_beginnings(plans: Iterable[tuple[str, planning.Plan]]) -> None:
    """Have looked into what only torch tells of trainings, and say what they would begin with.

    A child process gives a file of first weights to the network, as a worker will, and builds a
    network whose name alone does not tell its features; other trainings cost nothing. It is asked
    once for trainings that begin alike. Of a study with many different ones the first are looked
    into: all would take minutes, and the workers say the same.

    Args:
        plans: Trainings on this machine, each with the file or command line to name in errors.

    Raises:
        GcpctlError: There is no such network, it cannot take such images, or the weights do not
            fit; in the worker's words.
    """
    questions: dict[str, dict[str, object]] = {}
    for source, plan in plans:
        config = plan.spec.config
        begins = config["init"] is not None and Path(config["init"]["weights"]).exists()
        if begins or plan.config.model.num_positions(plan.config.images.size) is None:
            keys = ("init", "model", "data", "images", "progressive")
            alike = json.dumps([config[key] for key in keys], sort_keys=True)
            request = {"config": config, "source": source, "weights": begins}
            questions.setdefault(alike, request)
    asked = list(questions.values())[:_MOST_LOOKS]
    told = [ask("workloads.training.describe", "beginning", question)["told"] for question in asked]
    for sentence in dict.fromkeys(filter(None, told)):
        talk(f"the workers will say: {sentence}")


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
    if plan.spec.kind == "tune":
        tell_views(session, job)
    if follow_:
        sys.exit(follow(session, job))
    answer(job.job_id)
    for command in (f"status {job.job_id}", f"logs {job.job_id} -f", "ui"):
        talk(f"  {program()} {command}")


def tell_views(session: Session, job: Job, *, say: bool = True) -> None:
    """Put the views of a study or sweep into the MLflow UI and name them; nothing needs them."""
    from orchestrator.results.views import put_study_views

    try:
        links = put_study_views(session.store, session.profile, job)
    except GcpctlError as exc:
        talk(f"the job runs, but its views could not be put into MLflow: {exc.message}")
        return
    for title, link in links if say else ():
        talk(f"  {title}: {link}")


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
