"""Record a planned job in the store: the second half of plan, then send."""

import contextlib
import time

from orchestrator.jobs.errors import JobExistsError, UnreachableError
from orchestrator.jobs.job import (
    PREFIX,
    TAG_CONFIG,
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_PHASE,
    TAG_PRIORITY,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_SEED,
    TAG_SPEC,
    Job,
    queue_key,
)
from orchestrator.jobs.plan import Plan
from orchestrator.jobs.plan_eval import EvalPlan
from orchestrator.jobs.plan_tune import TunePlan
from orchestrator.jobs.provenance import Provenance
from orchestrator.jobs.spec import JobSpec, spec_text
from orchestrator.jobs.store import JobStore, now_ms
from workloads.config.document import dump_document
from workloads.config.validate import flatten

_LOST_REPLY_TRIES = 5


def record(
    store: JobStore, plan: Plan | EvalPlan | TunePlan, provenance: Provenance, *, cluster: str
) -> Job:
    """Create the job's run as SCHEDULED. From here on the job exists and will run.

    Args:
        cluster: Name of the profile it is submitted to.

    Raises:
        JobExistsError: A job of that name exists.
        UnreachableError: The tracking server does not answer.
    """
    spec = plan.spec
    existing = store.find_exact(spec.job_id)
    if existing is not None:
        raise JobExistsError(
            f"there is a job {spec.job_id!r} already; it is {existing.state}",
            f"choose another --name, or look at it: gcpctl status {spec.job_id}",
        )
    experiment = store.experiment_id(spec.study)
    return create_once(store, spec.job_id, experiment, tags_of(plan, provenance, cluster=cluster))


def attach_provenance(
    store: JobStore, job: Job, plan: Plan | EvalPlan | TunePlan, provenance: Provenance
) -> None:
    """Store with the job what it was made from, beyond what its spec says."""
    spec = plan.spec
    store.put_artifact(job, "config.yaml", dump_document(spec.config).encode())
    store.put_artifact(job, "command.txt", (provenance.command + "\n").encode())
    if provenance.diff:
        store.put_artifact(job, "git.diff", (provenance.diff + "\n").encode())
    store.log_params(job, params_of(plan))


def params_of(plan: Plan | EvalPlan | TunePlan) -> dict[str, str | int | float | bool | None]:
    """Return what MLflow shows as a job's parameters."""
    resources = plan.spec.resources
    workers = {"job.num_workers": resources.num_workers, "job.min_workers": resources.min_workers}
    return flatten(plan.config) | workers


def tags_of(
    plan: Plan | EvalPlan | TunePlan, provenance: Provenance, *, cluster: str
) -> dict[str, str]:
    """Return the tags that a training, an evaluation or a sweep is recorded with."""
    spec = plan.spec
    own = {TAG_SEED: str(plan.config.seed)} if isinstance(plan, Plan) else plan.tags()
    return (
        spec_tags(spec, provenance, cluster=cluster)
        | own
        | {
            PREFIX + "overrides": " ".join(plan.overrides),
            TAG_CONFIG: plan.config_sha256,
            "mlflow.note.content": _note(plan, provenance),
        }
    )


def spec_tags(spec: JobSpec, provenance: Provenance, *, cluster: str) -> dict[str, str]:
    """Return the tags that every job is recorded with, whatever its kind."""
    return provenance.tags() | {
        TAG_JOB_ID: spec.job_id,
        TAG_KIND: spec.kind,
        # Also where it is empty: filters cannot ask for what is not there.
        TAG_GROUP: spec.group,
        TAG_SPEC: spec_text(spec),
        TAG_QUEUE_KEY: queue_key(spec.priority, now_ms()),
        TAG_PRIORITY: str(spec.priority),
        TAG_PHASE: "queued",
        TAG_REASON: "",
        PREFIX + "recipe": spec.recipe,
        PREFIX + "user": provenance.user,
        PREFIX + "cluster": cluster,
    }


def _note(plan: Plan | EvalPlan | TunePlan, provenance: Provenance) -> str:
    spec = plan.spec
    lines = [spec.description, ""]
    if spec.published is not None:
        lines += [f"Published: {spec.published.describe()}", ""]
    lines += [f"`{provenance.command}`", ""]
    seed = f", seed {spec.config['seed']}" if "seed" in spec.config else ""
    lines.append(f"- job `{spec.job_id}`, {spec.resources.describe()}{seed}")
    lines.append(f"- follow it: `gcpctl logs {spec.job_id} -f`")
    return "\n".join(lines).strip()


def create_once(store: JobStore, job_id: str, experiment: str, tags: dict[str, str]) -> Job:
    """Create the run exactly once, also when the reply to the request is lost."""
    for attempt in range(_LOST_REPLY_TRIES):
        try:
            return store.create(job_id, experiment, tags)
        except UnreachableError:
            if attempt + 1 == _LOST_REPLY_TRIES:
                raise
            time.sleep(0.5 * 2**attempt)
            with contextlib.suppress(UnreachableError):
                found = store.find_exact(job_id)
                if found is not None:
                    return found
    raise AssertionError("unreachable")
