"""From names to trainings: jobs, studies, sweeps, or all that share a tag."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.jobs.job import (
    PREFIX,
    STUDY,
    TAG_BASELINE_CELL,
    TAG_EVALUATED,
    TAG_KIND,
    Job,
    member_tag,
    precedence,
)
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, safe_text
from orchestrator.results.cells import common_start
from orchestrator.results.comparison import Training
from orchestrator.results.training import evaluated_as, of_evaluation, of_job, of_trial
from workloads.config.errors import did_you_mean

_MOST = 2000
_FEW = 16
"""Trainings whose evaluations are asked for one by one; those of more come in one list."""
_TUNE = "tune"
_HINT = "see the names with: gcpctl status"


@dataclass(frozen=True)
class Selection:
    """What names stand for.

    Attributes:
        groups: The studies and sweeps among them.
    """

    trainings: tuple[Training, ...]
    groups: tuple[Job, ...]

    @property
    def title(self) -> str:
        """Name and question of the study or sweep, if it is one; else empty."""
        if len(self.groups) != 1:
            return ""
        question = " ".join(str(self.groups[0].raw_spec["config"].get("question", "")).split())
        return ": ".join(filter(None, (self.groups[0].job_id, question)))

    @property
    def metric(self) -> str:
        """What its study or sweep compares by; `top1` where none says."""
        for group in self.groups:
            config = group.raw_spec["config"]
            if group.kind == STUDY and config.get("metric"):
                return str(config["metric"])
            if group.kind == _TUNE and config.get("objectives"):
                return str(config["objectives"][0]["metric"])
        return "top1"


def collect(store: JobStore, names: Sequence[str]) -> list[Training]:
    """Return the trainings that names stand for; see `select`."""
    return list(select(store, names).trainings)


def select(store: JobStore, names: Sequence[str]) -> Selection:
    """Return the trainings that names stand for, each once, with their newest evaluations.

    Args:
        names: Of jobs: a training; an evaluation, for the training that it judged; a study or a
            sweep, for all of its own; `SWEEP-t007`, for a trial. Or `key=value`: `study=NAME`
            for all trainings of an MLflow experiment, else a tag (`recipe=NAME`, `user=NAME`,
            `mlflow.user=NAME`).

    Raises:
        NotFoundError: A name stands for nothing.
        ConflictError: A name stands for several jobs.
    """
    experiments = store.experiments()
    picked = _Picked(store, experiments)
    for name in names:
        picked.take(name)
    trainings = picked.trainings()
    if not trainings:
        raise NotFoundError(f"{' '.join(names)}: there are no trainings in it yet", _HINT)
    return Selection(tuple(trainings), tuple(picked.groups))


class _Picked:
    """The jobs that names stand for, in the order in which they are named."""

    def __init__(self, store: JobStore, experiments: Mapping[str, str]) -> None:
        self._store = store
        self._experiments = experiments
        self._done: dict[str, Training] = {}
        self._single: dict[str, Job] = {}
        self._judged_by: dict[str, Job] = {}
        self._order: list[str] = []
        self.groups: list[Job] = []

    def take(self, name: str) -> None:
        """Add what a name stands for."""
        if "=" in name:
            for job in self._tagged(name):
                self._add(job)
            return
        sweep, _, number = name.rpartition("-t")
        try:
            job = self._store.find(name)
        except NotFoundError:
            if sweep and number.isdigit():
                self._add_trials(self._store.find(sweep), only=name)
                return
            raise
        if job.kind == STUDY:
            self._add_study(job)
        elif job.kind == _TUNE:
            self._add_trials(job)
        elif job.kind == "eval":
            self._add_evaluation(job)
        else:
            self._add(job)

    def trainings(self) -> list[Training]:
        """Return the trainings, single ones with their evaluations."""
        jobs = list(self._single.values())
        chosen = newest_evaluations(self._evaluations(jobs)) | self._judged_by
        for job in jobs:
            self._done[job.run_id] = of_job(job, chosen.get(job.job_id))
        return [self._done[run_id] for run_id in dict.fromkeys(self._order)]

    def _add(self, job: Job) -> None:
        if job.run_id not in self._done:
            self._single[job.run_id] = job
        self._order.append(job.run_id)

    def _add_done(self, training: Training) -> None:
        self._single.pop(training.run_id, None)
        self._done.setdefault(training.run_id, training)
        self._order.append(training.run_id)

    def _add_evaluation(self, job: Job) -> None:
        trained = job.tags.get(TAG_EVALUATED)
        found = self._store.find_exact(trained) if trained else None
        if found is None:
            self._add_done(of_evaluation(job))
            return
        if job.state is State.FINISHED:
            self._judged_by[found.job_id] = job
        self._add(found)

    def _add_study(self, study: Job) -> None:
        self.groups.append(study)
        tag = member_tag(study.job_id)
        members = _each_once(self._store.members(study.job_id, experiments=self._experiments))
        trained = [job for job in members if job.kind == "train"]
        own = [job for job in members if job.kind == "eval" and job.state is State.FINISHED]
        chosen = newest_evaluations(own)
        asked = study.raw_spec["config"].get("evaluate")
        # A training that was there before the study may have been evaluated as the study asks.
        without = [j for j in trained if j.state is State.FINISHED and j.job_id not in chosen]
        if asked and without:
            others = (e for e in self._evaluations(without) if _is_as_asked(e, asked))
            chosen |= newest_evaluations(others)
        baseline = study.tags.get(TAG_BASELINE_CELL, "")
        position = _position_in(study)
        for job in sorted(trained, key=lambda j: (j.tags[tag] != baseline, position(j.tags[tag]))):
            cell = job.tags[tag]
            self._add_done(
                of_job(
                    job,
                    chosen.get(job.job_id),
                    cell=cell,
                    is_baseline=bool(baseline) and cell == baseline,
                    reused=job.group != study.job_id,
                )
            )

    def _add_trials(self, sweep: Job, only: str = "") -> None:
        if sweep.kind != _TUNE:
            raise NotFoundError(f"there is no job {only!r} on this cluster", _HINT)
        trials = self._store.trials(sweep.job_id, experiments=[sweep.experiment_id])
        chosen = [trial for trial in trials if only in ("", trial.job_id)]
        if only and not chosen:
            raise NotFoundError(
                f"{sweep.job_id} has no trial {only!r}; it has {len(trials)} so far", _HINT
            )
        if not only:
            self.groups.append(sweep)
        for trial in chosen:
            self._add_done(of_trial(trial, sweep))

    def _tagged(self, text: str) -> list[Job]:
        key, _, value = text.partition("=")
        ids = list(self._experiments)
        where = f"tags.`{TAG_KIND}` = 'train'"
        if key == "study":
            ids = [i for i, name in self._experiments.items() if name == value]
            if not ids:
                known = sorted(self._experiments.values())
                hint = did_you_mean(value, known) or f"known: {', '.join(known[:12])}"
                raise NotFoundError(f"there is no study {value!r}", hint)
        else:
            tag = safe_text(key if "." in key else PREFIX + key)
            where += f" AND tags.`{tag}` = '{safe_text(value)}'"
        oldest_first = ["attributes.start_time ASC"]
        jobs = self._store.search(where, limit=_MOST, order_by=oldest_first, experiments=ids)
        if not jobs:
            hint = "study=NAME, or a tag of the trainings such as recipe=NAME or user=NAME"
            raise NotFoundError(f"no training has {text!r}", hint)
        if len(jobs) == _MOST:
            raise ConflictError(
                f"{text!r} stands for {_MOST} trainings or more", "name fewer of them"
            )
        return _each_once(jobs)

    def _evaluations(self, trained: Sequence[Job]) -> list[Job]:
        """Return the finished evaluations of trainings, oldest first."""
        done = [job for job in trained if job.state is State.FINISHED]
        if len(done) <= _FEW:
            filters = [f"tags.`{TAG_EVALUATED}` = '{safe_text(job.job_id)}'" for job in done]
        else:
            stem = safe_text(common_start([job.job_id for job in done])).replace("%", "")
            since = min(job.start_ms for job in done)
            filters = [
                f"tags.`{TAG_EVALUATED}` LIKE '{stem}%' AND attributes.start_time >= {since}"
            ]
        found: dict[str, Job] = {}
        for where in filters:
            jobs = self._store.search(
                f"{where} AND attributes.status = 'FINISHED'",
                limit=50 if len(filters) > 1 else 50_000,
                experiments=self._experiments,
            )
            found |= {job.run_id: job for job in jobs if job.kind == "eval"}
        return sorted(found.values(), key=lambda job: job.start_ms)


def newest_evaluations(evaluations: Iterable[Job]) -> dict[str, Job]:
    """Return an evaluation for each training that has one, by the training's job id.

    Of several, the newest of the way of evaluating that most of the trainings share: ten crops of
    one and the centre of another are no pair.

    Args:
        evaluations: Finished ones.
    """
    ways: dict[tuple[str, ...], dict[str, Job]] = {}
    for job in sorted(evaluations, key=lambda job: job.start_ms):
        ways.setdefault(evaluated_as(job), {})[job.tags.get(TAG_EVALUATED, "")] = job
    newest = {way: max(job.start_ms for job in found.values()) for way, found in ways.items()}
    chosen: dict[str, Job] = {}
    for way in sorted(ways, key=lambda way: (len(ways[way]), newest[way])):
        chosen |= ways[way]
    chosen.pop("", None)
    return chosen


def _each_once(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs without the duplicates of their names."""
    found: dict[str, Job] = {}
    for job in jobs:
        found[job.job_id] = min(found.get(job.job_id, job), job, key=precedence)
    return list(found.values())


def _is_as_asked(evaluation: Job, asked: Mapping[str, str]) -> bool:
    which, _, crops, *_ = evaluated_as(evaluation)
    return which == asked.get("checkpoint") and crops == asked.get("crops")


def _position_in(study: Job) -> Callable[[str], tuple[int, list[int]]]:
    """Return where a cell stands: by the number of its changes, then in the order of the levels."""
    factors = study.raw_spec["config"].get("factors") or {}
    words = [f"{name}={level}" for name, f in factors.items() for level in f.get("levels", ())]
    index = {word: number for number, word in enumerate(words)}

    def position(cell: str) -> tuple[int, list[int]]:
        changes = cell.split(",")
        return len(changes), [index.get(word, len(index)) for word in changes]

    return position
