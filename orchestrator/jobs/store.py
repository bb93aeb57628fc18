"""The job store: MLflow's REST API, and the only module that speaks it.

A job is an MLflow run. Creating the run and its spec is one request, so a job is either
recorded whole or not at all.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.jobs.artifacts import Artifacts
from orchestrator.jobs.errors import ApiError, ConflictError, NotFoundError
from orchestrator.jobs.histories import Points, metric_histories
from orchestrator.jobs.http import HttpClient
from orchestrator.jobs.job import (
    STUDY,
    TAG_CONFIG,
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_PHASE,
    TAG_QUEUE_KEY,
    TAG_REASON,
    TAG_STOP,
    TRIAL,
    Job,
    member_tag,
    precedence,
)
from orchestrator.jobs.queue_head import QueueHead
from orchestrator.jobs.states import State, may_become

if TYPE_CHECKING:
    from cluster.profiles import Profile

_API = "/api/2.0/mlflow"
_BATCH_METRICS = 1000
_BATCH_PARAMS = 100
_TAG_LIMIT = 8000
_MANY = 1000
QUEUE_PAGE = 100
"""Queued jobs in a page; `active` shows all of them when they are fewer."""
_SLOW_CREATE_S = 10.0

MetricPoint = tuple[str, float, int, int]
"""Key, value, time in milliseconds since 1970, step."""


def safe_text(text: str) -> str:
    """Return a text without what could end a literal in MLflow's filters."""
    return text.translate(str.maketrans("", "", "'\"`\\"))


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return int(time.time() * 1000)


class JobStore(Artifacts):
    """Reads and writes jobs on one tracking server."""

    @classmethod
    def of(cls, profile: "Profile", *, timeout_s: float = 10.0) -> "JobStore":
        """Return the store of a cluster."""
        token = profile.token()
        return cls(HttpClient(profile.mlflow_url, token, what="MLflow", timeout_s=timeout_s))

    # -- reading ------------------------------------------------------------------------------

    def experiments(self) -> dict[str, str]:
        """Return the ids of all experiments with their names."""
        found: dict[str, str] = {}
        page = ""
        while True:
            body = {"max_results": 1000} | ({"page_token": page} if page else {})
            answer = self._client.call("POST", f"{_API}/experiments/search", body)
            found |= {e["experiment_id"]: e["name"] for e in answer.get("experiments", ())}
            page = answer.get("next_page_token", "")
            if not page:
                return found

    def search(
        self,
        where: str = "",
        *,
        limit: int = 50,
        order_by: Sequence[str] = ("attributes.start_time DESC",),
        experiments: Iterable[str] | None = None,
    ) -> list[Job]:
        """Return the jobs that MLflow's filter `where` matches, at most `limit`.

        Args:
            where: MLflow filter text, such as `attributes.status = 'RUNNING'`.
            experiments: Experiment ids to look in; None asks for all of them first.
        """
        ids = list(experiments if experiments is not None else self.experiments())
        return self._search_page(where, limit=limit, order_by=order_by, experiments=ids)[0]

    def _search_page(
        self,
        where: str,
        *,
        limit: int,
        order_by: Sequence[str],
        experiments: list[str],
        page: str = "",
        only_jobs: bool = True,
    ) -> tuple[list[Job], str]:
        """Return a page of jobs and the token of the next one, empty at the end."""
        is_job = f"tags.`{TAG_JOB_ID}` IS NOT NULL"  # LIKE '%' takes the server twice as long
        filters = [where] * bool(where) + [is_job] * only_jobs
        answer = self._client.call(
            "POST",
            f"{_API}/runs/search",
            {
                "experiment_ids": experiments,
                "filter": " AND ".join(filters),
                "max_results": limit,
                "order_by": list(order_by),
            }
            | ({"page_token": page} if page else {}),
        )
        jobs = [Job.from_run(run) for run in answer.get("runs", ())]
        return jobs, answer.get("next_page_token", "")

    def members(
        self, group: str, *, experiments: Iterable[str] | None = None, also: str = ""
    ) -> list[Job]:
        """Return all jobs whose results a study uses, its own and those of others, oldest first.

        Args:
            group: The study's job id.
            also: MLflow filter text that they must match besides.
        """
        mine = f"tags.`{member_tag(safe_text(group))}` LIKE '%'"
        return self._all(mine, also, experiments=experiments, only_jobs=True)

    def trials(
        self, group: str, *, experiments: Iterable[str] | None = None, also: str = ""
    ) -> list[Job]:
        """Return the trials of a sweep, oldest first; they are runs that no controller moves."""
        mine = f"tags.`{TAG_GROUP}` = '{safe_text(group)}' AND tags.`{TAG_KIND}` = '{TRIAL}'"
        return self._all(mine, also, experiments=experiments, only_jobs=False)

    def with_config(self, digests: Iterable[str]) -> dict[str, list[Job]]:
        """Return the jobs with each of these resolved configs, oldest first."""
        return self.with_tag(TAG_CONFIG, digests)

    def with_tag(self, key: str, values: Iterable[str]) -> dict[str, list[Job]]:
        """Return the jobs that have each of these values of a tag, oldest first.

        One request for each value: MLflow's filters know neither OR, nor IN for tags.
        """
        wanted, found = sorted(set(values)), dict[str, list[Job]]()
        ids = list(self.experiments()) if wanted else []
        for value in wanted:
            where = f"tags.`{key}` = '{safe_text(value)}'"
            if jobs := self._all(where, experiments=ids, only_jobs=True):
                found[value] = jobs
        return found

    def _all(self, *where: str, experiments: Iterable[str] | None, only_jobs: bool) -> list[Job]:
        """Return everything that all of these filters match, page by page."""
        ids = list(experiments if experiments is not None else self.experiments())
        found: list[Job] = []
        page = ""
        while True:
            jobs, page = self._search_page(
                " AND ".join(filter(None, where)),
                limit=_MANY,
                order_by=["attributes.start_time ASC"],
                experiments=ids,
                page=page,
                only_jobs=only_jobs,
            )
            found += jobs
            if not page:
                return found

    def active(self) -> list[Job]:
        """Return the RUNNING jobs, the queued ones to be stopped, and the head of the queue."""
        ids = list(self.experiments())
        jobs = self.search("attributes.status = 'RUNNING'", limit=_MANY, experiments=ids)
        head = QueueHead(jobs, now_ms())
        jobs += self.search(
            f"attributes.status = 'SCHEDULED' AND tags.`{TAG_STOP}` != ''",
            limit=_MANY,
            experiments=ids,
        )
        page = ""
        while True:
            queued, page = self._search_page(
                "attributes.status = 'SCHEDULED'",
                limit=QUEUE_PAGE,
                order_by=[f"tags.`{TAG_QUEUE_KEY}` ASC"],
                experiments=ids,
                page=page,
            )
            jobs += queued
            # What comes after the page of one that starts now or holds it back needs no look yet.
            if not page or any(head.reaches(job) for job in queued):
                break
        # A job may move between the requests: the last look counts, and counts once.
        return list({job.run_id: job for job in jobs}.values())

    def find(self, name: str) -> Job:
        """Return the job with this id, or the only one whose id starts or ends so.

        Raises:
            NotFoundError: No such job.
            ConflictError: Several jobs match.
        """
        safe = safe_text(name).replace("%", "")
        key = f"tags.`{TAG_JOB_ID}`"
        ids = list(self.experiments())
        # One request finds the exact name, a prefix and a suffix alike.
        jobs = self.search(f"{key} LIKE '%{safe}%'", limit=50, experiments=ids) if safe else []
        exact = [job for job in jobs if job.job_id == name]
        if not exact and len(jobs) == 50:  # a name that many ids contain
            exact = self.search(f"{key} = '{safe}'", experiments=ids)
        if exact:
            return min(exact, key=precedence)
        close = [job for job in jobs if job.job_id.startswith(name) or job.job_id.endswith(name)]
        if len(close) == 1:
            return close[0]
        if close:
            names = ", ".join(job.job_id for job in close[:5])
            raise ConflictError(f"{name!r} is not one job: {names} match", "give more of the name")
        raise NotFoundError(
            f"there is no job {name!r} on this cluster", "see the names with: gcpctl status"
        )

    def find_exact(self, job_id: str) -> Job | None:
        """Return the job with exactly this id, or None."""
        where = f"tags.`{TAG_JOB_ID}` = '{safe_text(job_id)}'"
        return min(self.search(where), key=precedence, default=None)

    def get(self, run_id: str) -> Job:
        """Return the job of an MLflow run id."""
        answer = self._client.call("GET", f"{_API}/runs/get", query={"run_id": run_id})
        return Job.from_run(answer["run"])

    def metric_history(self, run_id: str, key: str) -> list[tuple[int, float]]:
        """Return all points of a metric as (step, value), in the order of storage."""
        points: list[tuple[int, float]] = []
        page = ""
        while True:
            query = {"run_id": run_id, "metric_key": key, "max_results": "10000"}
            if page:
                query["page_token"] = page
            answer = self._client.call("GET", f"{_API}/metrics/get-history", query=query)
            points += [(int(m["step"]), float(m["value"])) for m in answer.get("metrics", ())]
            page = answer.get("next_page_token", "")
            if not page:
                return points

    def metric_histories(self, run_ids: Sequence[str], key: str) -> dict[str, Points]:
        """Return all points of a metric of many runs, by run id."""
        return metric_histories(self._client, run_ids, key, self.metric_history)

    def has_model(self, name: str, *, version: str | None, alias: str | None) -> bool:
        """Whether the registry has a model's version, given by its number or by an alias."""
        query = {"name": name} | ({"version": version} if version else {"alias": alias or ""})
        path = "model-versions/get" if version else "registered-models/alias"
        try:
            self._client.call("GET", f"{_API}/{path}", query=query)
        except NotFoundError:
            return False
        except ApiError as exc:
            if "does not exist" in exc.text or "not found" in exc.text:
                return False
            raise
        return True

    # -- writing ------------------------------------------------------------------------------

    def experiment_id(self, name: str) -> str:
        """Return the id of an experiment, which is made if need be."""
        for _ in range(2):
            try:
                answer = self._client.call(
                    "GET", f"{_API}/experiments/get-by-name", query={"experiment_name": name}
                )
                return str(answer["experiment"]["experiment_id"])
            except NotFoundError:
                pass
            try:
                answer = self._client.call("POST", f"{_API}/experiments/create", {"name": name})
                return str(answer["experiment_id"])
            except ApiError as exc:
                if "RESOURCE_ALREADY_EXISTS" not in exc.text:
                    raise
        raise ConflictError(
            f"the study {name!r} was deleted in MLflow and its name is still taken",
            "restore it there, or choose another name with study=NAME",
        )

    def create(self, job_id: str, experiment_id: str, tags: Mapping[str, str]) -> Job:
        """Record a job as SCHEDULED; `tags` carry its spec and provenance."""
        too_long = [key for key, value in tags.items() if len(value) > _TAG_LIMIT]
        if too_long:
            raise ConflictError(
                f"the job's {too_long[0]} has {len(tags[too_long[0]])} characters; the tracking "
                f"server stores at most {_TAG_LIMIT}"
            )
        began = time.monotonic()
        answer = self._client.call(
            "POST",
            f"{_API}/runs/create",
            {
                "experiment_id": experiment_id,
                "run_name": job_id,
                "start_time": now_ms(),
                "tags": [{"key": key, "value": value} for key, value in tags.items()],
            },
            retry=False,
        )
        run = answer["run"]
        # MLflow creates runs as RUNNING. If we are cut off here, the controller queues the run
        # after a while; so a slow `submit` must look before it writes.
        if time.monotonic() - began > _SLOW_CREATE_S:
            job = self.get(run["info"]["run_id"])
            if job.attempt > 0 or job.state is not State.RUNNING:
                return job
        self._client.call(
            "POST",
            f"{_API}/runs/update",
            {"run_id": run["info"]["run_id"], "status": State.SCHEDULED.value},
            retry=False,
        )
        run["info"]["status"] = State.SCHEDULED.value
        return Job.from_run(run)

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Write a tag of an experiment; saved views of the UI are such tags."""
        body = {"experiment_id": experiment_id, "key": key, "value": value}
        self._client.call("POST", f"{_API}/experiments/set-experiment-tag", body)

    def experiment_tags(self, experiment_id: str) -> dict[str, str]:
        """Return the tags of an experiment."""
        query = {"experiment_id": experiment_id}
        answer = self._client.call("GET", f"{_API}/experiments/get", query=query)
        return {tag["key"]: tag["value"] for tag in answer["experiment"].get("tags", ())}

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Delete a tag of an experiment."""
        body = {"experiment_id": experiment_id, "key": key}
        self._client.call("POST", f"{_API}/experiments/delete-experiment-tag", body)

    def set_tags(self, job: Job, tags: Mapping[str, str]) -> None:
        """Write tags in one request."""
        body = {
            "run_id": job.run_id,
            "tags": [{"key": key, "value": value[:_TAG_LIMIT]} for key, value in tags.items()],
        }
        self._client.call("POST", f"{_API}/runs/log-batch", body)

    def delete_tag(self, job: Job, key: str) -> None:
        """Delete a tag; one that is not there is no error."""
        body = {"run_id": job.run_id, "key": key}
        with contextlib.suppress(NotFoundError):
            self._client.call("POST", f"{_API}/runs/delete-tag", body)

    def queue_again(self, job: Job, *, phase: str, tags: Mapping[str, str] = {}) -> None:
        """Put an ended job back into the queue, because a person asks for that.

        A study may even be FINISHED: jobs of it ran again, and its report is to tell of them.

        Raises:
            ConflictError: The job has not ended, or has finished for good.
        """
        for_good = job.state is State.FINISHED and job.kind != STUDY
        if not job.state.is_final or for_good:
            raise ConflictError(f"{job.job_id} is {job.state} and cannot be queued again")
        self.set_tags(job, {TAG_PHASE: phase, TAG_REASON: ""} | dict(tags))
        body = {"run_id": job.run_id, "status": State.SCHEDULED.value}
        self._client.call("POST", f"{_API}/runs/update", body)

    def move(
        self, job: Job, state: State, *, phase: str, reason: str, tags: Mapping[str, str] = {}
    ) -> None:
        """Move a job to another state, with a word on why.

        The tags are written first: whoever sees the new state finds its reason there.

        Raises:
            ConflictError: The state cannot be reached from the present one.
        """
        if not may_become(job.state, state) and job.state is not state:
            raise ConflictError(f"{job.job_id} is {job.state} and cannot become {state}")
        self.set_tags(job, {TAG_PHASE: phase, TAG_REASON: reason} | dict(tags))
        body: dict[str, Any] = {"run_id": job.run_id, "status": state.value}
        if state.is_final:
            body["end_time"] = now_ms()
        self._client.call("POST", f"{_API}/runs/update", body)

    def log_metrics(self, job: Job, points: Sequence[MetricPoint]) -> None:
        """Store metric points; a point stored before, with equal time and value, stays one."""
        for start in range(0, len(points), _BATCH_METRICS):
            body = {
                "run_id": job.run_id,
                "metrics": [
                    {"key": key, "value": value, "timestamp": time_ms, "step": step}
                    for key, value, time_ms, step in points[start : start + _BATCH_METRICS]
                ],
            }
            self._client.call("POST", f"{_API}/runs/log-batch", body)

    def log_params(self, job: Job, params: Mapping[str, Any]) -> None:
        """Store the parameters of a job."""
        items = [{"key": key, "value": str(value)[:6000]} for key, value in params.items()]
        for start in range(0, len(items), _BATCH_PARAMS):
            body = {"run_id": job.run_id, "params": items[start : start + _BATCH_PARAMS]}
            self._client.call("POST", f"{_API}/runs/log-batch", body)
