"""Which views a study, a sweep and a plain experiment have; nothing here asks a server."""

from dataclasses import dataclass

from orchestrator.jobs.job import (
    PREFIX,
    TAG_GROUP,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_SEED,
    TRIAL,
    member_tag,
)
from orchestrator.results.view_cards import (
    SavedView,
    Section,
    difference,
    layout,
    line,
    means_over,
    parallel,
    scatter,
    search,
    table,
)

_ACCURACY = "val/top1"
_COSTS = ("model/macs", "time/train_s")
_TABLE_METRICS = (
    _ACCURACY,
    "eval/top1",
    "eval/top5",
    "eval/loss",
    "eval/ece",
    "train/loss",
    "model/parameters",
    "model/macs",
    "time/train_s",
    "perf/images_per_s",
)


@dataclass(frozen=True)
class StudyFacts:
    """What the views of a study are made from.

    Attributes:
        job_id: Of the study.
        common_keys: Keys of the config that its trainings differ in and that all of them have.
        all_keys: Those and the keys that only some of them have.
        metrics: Metrics that its trainings and evaluations have recorded so far.
        baseline_run: Run that the others are compared with; empty until there is one.
        baseline_seed: Its seed: a difference is read between runs of one seed.
        top1_range: Where the last values of val/top1 lie, in percent; None until they are known.
    """

    job_id: str
    common_keys: tuple[str, ...]
    all_keys: tuple[str, ...]
    metrics: frozenset[str] = frozenset()
    baseline_run: str = ""
    baseline_seed: int | None = None
    top1_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class SweepFacts:
    """What the views of a sweep are made from.

    Attributes:
        job_id: Of the sweep.
        common_keys: Keys of the config that all trials have drawn.
        all_keys: Those and the keys that exist in some trials only.
        objectives: Metrics, each with whether larger is better; the first one sorts.
    """

    job_id: str
    common_keys: tuple[str, ...]
    all_keys: tuple[str, ...]
    objectives: tuple[tuple[str, bool], ...]


def study_views(facts: StudyFacts) -> list[SavedView]:
    """Return the four views of a study: parameters, convergence, difference, table."""
    member = member_tag(facts.job_id)
    is_member = f"tags.`{member}` LIKE '%'"
    is_training = f"{is_member} AND tags.`{TAG_KIND}` = 'train'"
    trainings = search(is_training, order_by=_ACCURACY)

    costs = [scatter(cost, _ACCURACY) for cost in _COSTS]
    parameters = [
        Section("Parameters", [parallel(facts.common_keys, [_ACCURACY])], 480, columns=1),
        Section("Accuracy against cost", costs, 400),
    ]
    # Read as: the whole course, then its end, where cells can be told apart.
    zoomed = [line(_ACCURACY, facts.top1_range)] if facts.top1_range else []
    curves = [line(_ACCURACY), *zoomed, line("val/loss"), line("train/loss")]
    of_one_seed = is_training
    if facts.baseline_seed is not None:
        of_one_seed += f" AND tags.`{TAG_SEED}` = '{facts.baseline_seed}'"
    against = difference("Against the baseline, at equal seed", facts.baseline_run)
    columns = [f"params.`{key}`" for key in (*facts.all_keys, "seed")]
    columns += [f"metrics.`{key}`" for key in _TABLE_METRICS]
    return [
        SavedView(
            view_id(facts.job_id, "params"),
            f"{facts.job_id}: parameters",
            "CHART",
            trainings | layout(parameters, metrics=facts.metrics),
        ),
        SavedView(
            view_id(facts.job_id, "convergence"),
            f"{facts.job_id}: convergence",
            "CHART",
            trainings
            | means_over(member)
            | layout([Section("Convergence, mean over seeds", curves)], metrics=facts.metrics),
        ),
        SavedView(
            view_id(facts.job_id, "baseline"),
            f"{facts.job_id}: against the baseline",
            "CHART",
            search(of_one_seed, order_by=_ACCURACY)
            | layout([Section("Difference", [against], 720, columns=1)], metrics=facts.metrics),
        ),
        SavedView(
            view_id(facts.job_id, "table"),
            f"{facts.job_id}: table",
            "TABLE",
            # Trainings and evaluations together: a cell's row has the means of both.
            search(is_member, order_by=_ACCURACY) | means_over(member) | table(columns),
        ),
    ]


def sweep_views(facts: SweepFacts) -> list[SavedView]:
    """Return the views of a sweep: parameters, convergence, table."""
    first, larger = facts.objectives[0]
    others = [metric for metric, _ in facts.objectives[1:]]
    is_trial = f"tags.`{TAG_GROUP}` = '{facts.job_id}' AND tags.`{TAG_KIND}` = '{TRIAL}'"
    trials = search(is_trial, order_by=first, ascending=not larger)
    drawn = [parallel(facts.common_keys, [*others, first])]
    drawn += [scatter(other, first) for other in others]
    courses = dict.fromkeys([first, *others, "train/loss"])
    # What a network costs does not change from epoch to epoch.
    curves = [line(metric) for metric in courses if not metric.startswith("model/")]
    columns = [f"metrics.`{metric}`" for metric in (first, *others)]
    columns += [f"params.`{key}`" for key in facts.all_keys]
    columns += [f"metrics.`{key}`" for key in ("progress/epoch", "time/train_s")]
    return [
        SavedView(
            view_id(facts.job_id, "params"),
            f"{facts.job_id}: parameters",
            "CHART",
            trials | layout([Section("Trials", drawn, 480, columns=1)], metrics=[first, *others]),
        ),
        SavedView(
            view_id(facts.job_id, "convergence"),
            f"{facts.job_id}: convergence",
            "CHART",
            trials | layout([Section("Convergence", curves)], metrics=[first, *others]),
        ),
        SavedView(
            view_id(facts.job_id, "table"),
            f"{facts.job_id}: table",
            "TABLE",
            trials | table(columns),
        ),
    ]


def experiment_view() -> SavedView:
    """Return the view of all jobs of an experiment: a table."""
    columns = [f"tags.`{PREFIX}{name}`" for name in ("kind", "recipe")]
    columns += [f"params.`{key}`" for key in ("model.head.pooling.name", "optim.lr", "seed")]
    columns += [f"metrics.`{key}`" for key in _TABLE_METRICS]
    newest_first = search(f"tags.`{TAG_JOB_ID}` LIKE '%'", order_by="attributes.start_time")
    return SavedView(view_id("all", "table"), "All runs", "TABLE", newest_first | table(columns))


def view_id(group: str, word: str) -> str:
    """Return the fixed id of a view: a study's views are rewritten, never multiplied."""
    return f"{PREFIX}{group}.{word}"
