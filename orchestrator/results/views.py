"""Saved views of the MLflow UI for studies and sweeps: put there, linked, taken away.

A view is a tag of the experiment. Each study has a fixed set of them, which is rewritten, never
multiplied; views that people saved themselves are left alone.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import PREFIX, TAG_BASELINE, TAG_BASELINE_CELL, Job, member_tag
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore, now_ms
from orchestrator.results.links import view_page
from orchestrator.results.view_cards import VIEW_TAG, SavedView
from orchestrator.results.view_states import (
    StudyFacts,
    SweepFacts,
    experiment_view,
    study_views,
    sweep_views,
)

if TYPE_CHECKING:
    from cluster.profiles import Profile

MOST_VIEWS = 36
"""Of one experiment. At 40 the UI lets nobody save a view of their own."""
_OURS = VIEW_TAG + PREFIX
_NOT_A_FACTOR = frozenset({"seed"})


@dataclass(frozen=True)
class ViewPage:
    """Where a view is.

    Attributes:
        word: `params`, `convergence`, `baseline` or `table`.
        title: What the UI's menu of views calls it.
        page: Its address, to be put behind that of the server.
    """

    word: str
    title: str
    page: str


Link = tuple[str, str]
"""A view's title and its address, without the token that a browser shows at its first visit."""


def put_study_views(store: JobStore, profile: "Profile", parent: Job) -> list[Link]:
    """Write the views of a study or sweep as `put_views` does, and return their links."""
    return [(view.title, f"{profile.mlflow_url}/{view.page}") for view in put_views(store, parent)]


put_sweep_views = put_study_views


def put_views(store: JobStore, job: Job) -> list[ViewPage]:
    """Write the views of whatever `job` is or belongs to: a study, a sweep, or its experiment.

    They fill themselves while trainings run. Written again they take up what is known by then: the
    run of a study's baseline, and where its accuracies lie.

    Raises:
        GcpctlError: The tracking server does not answer, or refuses.
    """
    parent = (store.find_exact(job.group) if job.group else None) or job
    if parent.kind == "ablation":
        views = study_views(describe_study(parent, store.members(parent.job_id)))
    elif parent.kind == "tune":
        views = sweep_views(describe_sweep(parent))
    else:
        views = [experiment_view()]
    _put(store, parent.experiment_id, views)
    return [
        ViewPage(
            word=view.view_id.rpartition(".")[2],
            title=view.name,
            page=view_page(parent.experiment_id, view.view_id, view.mode),
        )
        for view in views
    ]


def forget_views(store: JobStore, parent: Job) -> int:
    """Delete the views of a study or sweep; return how many there were."""
    start = f"{_OURS}{parent.job_id}."
    tags = [key for key in store.experiment_tags(parent.experiment_id) if key.startswith(start)]
    for tag in tags:
        _delete(store, parent.experiment_id, tag)
    return len(tags)


def describe_study(parent: Job, members: Sequence[Job]) -> StudyFacts:
    """Return what the views of a study are made from.

    Args:
        members: The jobs whose results it uses. Those of other experiments are left out, for a
            view sees its own experiment only.
    """
    own = [job for job in members if job.experiment_id == parent.experiment_id]
    trainings = [job for job in own if job.kind == "train"]
    common, every = _differing_keys(trainings)
    baseline = _baseline(parent, trainings)
    finals = [
        job.metrics["val/top1"]
        for job in trainings
        if job.state is State.FINISHED and "val/top1" in job.metrics
    ]
    return StudyFacts(
        job_id=parent.job_id,
        common_keys=common,
        all_keys=every,
        metrics=frozenset(key for job in own for key in job.metrics),
        baseline_run="" if baseline is None else baseline.run_id,
        baseline_seed=None if baseline is None else baseline.seed,
        top1_range=_range(finals) if len(finals) > 1 else None,
    )


def describe_sweep(parent: Job) -> SweepFacts:
    """Return what the views of a sweep are made from: its config says it all.

    A trial has what it chose as parameters, by the very keys of the space.
    """
    config = parent.raw_spec["config"]
    every = dict.fromkeys(dimension["key"] for dimension in config["space"])
    conditional = {d["key"] for d in config["space"] if d.get("when")}
    return SweepFacts(
        job_id=parent.job_id,
        # A trial without one of the chosen keys would not be drawn at all.
        common_keys=tuple(key for key in every if key not in conditional),
        all_keys=tuple(every),
        objectives=tuple((o["metric"], o["direction"] == "max") for o in config["objectives"]),
    )


def _differing_keys(trainings: Sequence[Job]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys that are not equal in all trainings: those all have, and all such keys."""
    from workloads.config.validate import flatten

    configs = [flatten(job.raw_spec["config"]) for job in trainings]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [
        key
        for key in keys
        if key not in _NOT_A_FACTOR
        and len({json.dumps(config[key]) for config in configs if key in config}) > 1
    ]
    common = [key for key in differing if all(key in config for config in configs)]
    return tuple(common), tuple(sorted(differing, key=lambda key: key not in common))


def _baseline(parent: Job, trainings: Sequence[Job]) -> Job | None:
    """Return the training that the others are compared with; one that has finished first."""
    cell = parent.tags.get(TAG_BASELINE_CELL)
    tag = member_tag(parent.job_id)
    candidates = [
        job
        for job in trainings
        if (cell and job.tags.get(tag) == cell)
        or (not cell and job.group == parent.job_id and job.tags.get(TAG_BASELINE) == "true")
    ]
    by_seed = sorted(candidates, key=lambda job: (job.seed is None, job.seed or 0))
    return min(by_seed, key=lambda job: job.state is not State.FINISHED, default=None)


def _range(finals: Sequence[float]) -> tuple[float, float]:
    """Return an axis of val/top1 on which final values can be told apart, in percent."""
    spread = max(max(finals) - min(finals), 1.0)
    return (
        max(0.0, round(min(finals) - spread, 1)),
        min(100.0, round(max(finals) + spread / 4, 1)),
    )


def _put(store: JobStore, experiment_id: str, views: Sequence[SavedView]) -> None:
    there = {
        key: value
        for key, value in store.experiment_tags(experiment_id).items()
        if key.startswith(VIEW_TAG)
    }
    _make_room(store, experiment_id, there, keep={view.tag for view in views})
    now = now_ms()
    for number, view in enumerate(views):
        # The menu shows the newest first: the first of a set comes out on top.
        value = view.encode(_created_ms(there.get(view.tag)) or now - number)
        if there.get(view.tag) != value:
            store.set_experiment_tag(experiment_id, view.tag, value)


def _make_room(
    store: JobStore, experiment_id: str, there: Mapping[str, str], *, keep: set[str]
) -> None:
    """Delete the views of the oldest studies until there is room for those to be kept."""
    groups: dict[str, list[str]] = {}
    for tag in there:
        if tag.startswith(_OURS) and tag not in keep:
            groups.setdefault(tag.rpartition(".")[0], []).append(tag)
    excess = len(there.keys() | keep) - MOST_VIEWS
    for tags in sorted(groups.values(), key=lambda tags: _created_ms(there[tags[0]])):
        if excess <= 0:
            return
        for tag in tags:
            _delete(store, experiment_id, tag)
        excess -= len(tags)


def _created_ms(value: str | None) -> int:
    """Return when a view was first written; 0 for none, and for what is no view of ours."""
    try:
        return int(json.loads(value or "{}").get("createdAt", 0))
    except (ValueError, TypeError, AttributeError):
        return 0


def _delete(store: JobStore, experiment_id: str, tag: str) -> None:
    with contextlib.suppress(NotFoundError):  # somebody was faster
        store.delete_experiment_tag(experiment_id, tag)
