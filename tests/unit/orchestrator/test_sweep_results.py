"""What a sweep came to: best trial, front, importance, cost, and a recipe that repeats it."""

import csv
import io
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.job import TAG_PRUNED, TAG_RESULT, TAG_SPEC, TAG_TRIAL, TAG_VALUES, Job
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.plan_tune import TuneRequest, plan_tune
from orchestrator.jobs.ray_jobs import Node
from orchestrator.jobs.space import config_sha256, sample, trial_config
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.trial_store import TAG_SECONDS
from orchestrator.results import sweep_preview
from orchestrator.results.status import details
from orchestrator.results.sweep import (
    SweepTrial,
    best_trial,
    cost,
    pareto_front,
    ranked,
    result,
    table,
    trial_of,
    trials_csv,
)
from orchestrator.results.sweep_importance import importance
from orchestrator.results.sweep_recipe import best_recipe
from workloads.config.document import load_document
from workloads.config.sweep import Objective

TOP1 = Objective(metric="val/top1", direction="max")
MACS = Objective(metric="model/macs", direction="min")
SPACE = (
    "optim.lr=loguniform(1e-3, 1)",
    "model.head.pooling=choice(gap, isqrt)",
    "model.head.pooling.num_iters=int(1, 7) if model.head.pooling=isqrt",
)


def make_plan(*space, recipe="digits_resnet_isqrt", overrides=(), **options):
    request = TuneRequest(
        space=space or SPACE, nodes=(Node(cpus=4, gpus=0),), name="tune-a", **options
    )
    return plan_tune(recipe, overrides, request)


def trial(number, top1=None, macs=None, ending="finished", values=None, **fields):
    metrics = {"val/top1": top1, "model/macs": macs}
    found = {key: float(value) for key, value in metrics.items() if value is not None}
    return SweepTrial(number, values or {"optim.lr": 0.1}, found, ending, **fields)


# --- the best ------------------------------------------------------------------------------------


def test_the_best_is_the_best_that_finished():
    trials = [
        trial(0, 90),
        trial(1, 99, ending="pruned"),
        trial(2, 95),
        trial(3, 95),
        trial(4, float("nan")),
        trial(5, 99.5, ending="failed"),
        trial(6),
    ]
    assert best_trial(trials, (TOP1,)).number == 2
    assert [t.number for t in ranked(trials, (TOP1,))] == [2, 3, 0, 4, 6, 1, 5]
    assert best_trial(trials, (Objective(metric="val/top1", direction="min"),)).number == 0
    assert best_trial(trials[1:2], (TOP1,)) is None
    assert best_trial([trials[4]], (TOP1,)) is None


def test_a_front_by_hand():
    trials = [
        trial(0, 90, 10),
        trial(1, 95, 20),
        trial(2, 94, 30),
        trial(3, 80, 5),
        trial(4, 95, 20),
        trial(5, 99),
        trial(6, 99, 1, ending="pruned"),
    ]
    assert [t.number for t in pareto_front(trials, (TOP1, MACS))] == [1, 4, 0, 3]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_nothing_beats_a_trial_on_the_front_and_something_beats_all_others(points):
    trials = [trial(i, top1, macs) for i, (top1, macs) in enumerate(points)]
    front = {t.number for t in pareto_front(trials, (TOP1, MACS))}

    def beats(one, other):
        better = points[one][0] >= points[other][0] and points[one][1] <= points[other][1]
        return better and points[one] != points[other]

    for number in range(len(points)):
        assert (number in front) is not any(beats(i, number) for i in range(len(points)))


def test_a_best_trial_without_the_second_number_is_still_a_result():
    plan = make_plan(objectives=("val/top1", "model/macs"))
    trials = [trial(0, 99), trial(1, 98, float("nan")), trial(2, 90, 5)]
    found = result(plan.config, trials, plan.spec.resources, importance(plan.config, trials))
    assert found["best"]["metrics"] == {"val/top1": 99.0}
    assert [t["trial"] for t in found["front"]] == ["t002"]
    json.dumps(found, allow_nan=False)


# --- the recipe ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "overrides", "values"),
    [
        (SPACE, (), {"optim.lr": 0.012345678901234567, "model.head.pooling": "gap"}),
        (
            SPACE,
            ("epochs=3", "images.size=16"),
            {
                "optim.lr": 1e-3,
                "model.head.pooling": "isqrt",
                "model.head.pooling.num_iters": 5,
            },
        ),
        (("optim=choice(sgd, adamw)",), ("optim.momentum=0.5",), {"optim": "adamw"}),
        (("steps_per_epoch=choice(null, 4)",), ("clip_norm=2.0",), {"steps_per_epoch": None}),
        (("images.size=choice(8, 16)",), ("study=other",), {"images.size": 16}),
        (("mix.mixup=choice(0.1, 0.2)",), (), {"mix.mixup": 0.2}),
    ],
)
def test_the_best_recipe_trains_what_the_trial_trained(tmp_path, space, overrides, values):
    plan = make_plan(*space, overrides=overrides)
    text = best_recipe(
        plan.config,
        trial(7, 98.5, values=values),
        job_id="tune-a",
        study=plan.spec.study,
        resources=plan.spec.resources,
    )
    file = tmp_path / "best.yaml"
    file.write_text(text)
    again = plan_train(str(file), (), Request())
    assert again.config_sha256 == config_sha256(trial_config(plan.config.base, values))
    assert again.spec.resources == plan.spec.resources.with_workers(1)
    assert again.spec.study == plan.spec.study
    document = load_document(text, "best.yaml")
    assert document["extends"] == "digits_resnet_isqrt"
    assert "t007 of tune-a: val/top1 98.5" in document["description"]
    assert "published" not in document


def test_the_best_recipe_of_a_persons_file_stands_by_itself(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: digits_resnet_isqrt\nepochs: 4\n")
    plan = make_plan(recipe=str(mine), workers=2)
    values = {"optim.lr": 0.3, "model.head.pooling": "gap"}
    text = best_recipe(
        plan.config,
        trial(0, 90, values=values),
        job_id="tune-a",
        study="digits",
        resources=plan.spec.resources,
    )
    mine.unlink()
    file = tmp_path / "best.yaml"
    file.write_text(text)
    again = plan_train(str(file), (), Request())
    assert again.config_sha256 == config_sha256(trial_config(plan.config.base, values))
    assert again.spec.resources.num_workers == 2


def test_the_best_recipe_of_a_published_network_gives_data_and_size(tmp_path):
    recipe = "imagenet_resnet18_isqrt_lrfast"
    plan = make_plan("optim.lr=choice(0.1)", recipe=recipe, overrides=["data.path=/data/in"])
    values = {"optim.lr": 0.1}
    found = trial(0, 70, values=values)
    text = best_recipe(
        plan.config, found, job_id="tune-a", study=plan.spec.study, resources=plan.spec.resources
    )
    (tmp_path / "best.yaml").write_text(text)
    again = plan_train(str(tmp_path / "best.yaml"), (), Request())
    assert again.config_sha256 == config_sha256(trial_config(plan.config.base, values))
    assert again.spec.published is None or "top1" not in text


# --- importance ----------------------------------------------------------------------------------


def searched(plan, value_of, count=40):
    rng = random.Random(0)
    points = [sample(plan.config.space, rng) for _ in range(count)]
    return [trial(i, value_of(point), values=point) for i, point in enumerate(points)]


def test_the_dimension_that_matters_is_named():
    plan = make_plan(
        "optim.lr=loguniform(1e-3, 1)", "optim.momentum=uniform(0, 0.9)", "seed=int(0, 9)"
    )
    trials = searched(plan, lambda v: 50 + 40 * v["optim.momentum"] + 0.1 * v["seed"])
    found = importance(plan.config, trials)
    assert found.shares[0].label == "optim.momentum"
    assert found.shares[0].share > 0.9
    assert sum(share.share for share in found.shares) == pytest.approx(1.0)
    assert found.remark == ""


def test_a_conditional_dimension_is_judged_where_it_exists():
    plan = make_plan()

    def value(v):
        iters = v.get("model.head.pooling.num_iters")
        return 50.0 if iters is None else 60.0 + 5 * iters

    found = importance(plan.config, searched(plan, value, 60))
    shares = {share.label: share for share in found.shares}
    name = "model.head.pooling.num_iters if model.head.pooling=isqrt"
    assert shares[name].share > 0.8
    assert 10 < shares[name].trials < 60
    assert shares["model.head.pooling"].share > 0.5


def test_importance_that_cannot_be_told_says_why():
    plan = make_plan()
    few = searched(plan, lambda v: v["optim.lr"], 3)
    assert importance(plan.config, few).remark == "needs 4 finished trials, and there are 3"
    same = searched(plan, lambda v: 5.0, 9)
    assert importance(plan.config, same).remark == "all trials have the same val/top1"
    some = searched(plan, lambda v: v["optim.lr"], 9)
    assert "9 trials only" in importance(plan.config, some).remark
    lost = [SweepTrial(t.number, t.values, {}, "failed") for t in some]
    assert not importance(plan.config, lost).shares


def test_settings_beyond_the_range_are_no_error():
    plan = make_plan("optim.lr=loguniform(1e-3, 1)", "label_smoothing=uniform(0, 0.1)")
    trials = searched(plan, lambda v: v["optim.lr"])
    trials.append(trial(99, 3.0, values={"optim.lr": 1.2, "label_smoothing": 0.12}))
    assert importance(plan.config, trials).shares[0].label == "optim.lr"


# --- cost and tables -----------------------------------------------------------------------------


def test_cost_counts_what_was_held_by_how_it_ended():
    plan = make_plan(overrides=["epochs=10"], workers=2)
    trials = [
        trial(0, 90, epochs=10, seconds=30.0),
        trial(1, 50, epochs=3, seconds=9.0, ending="pruned"),
        trial(2, ending="failed", seconds=1.0),
    ]
    spent = cost(plan.config, trials, Resources(cpus_per_worker=3, gpus_per_worker=1))
    assert spent.trials == {"finished": 1, "pruned": 1, "failed": 1, "running": 0}
    assert (spent.total_cpu_s, spent.total_gpu_s) == (240.0, 80.0)
    assert spent.cpu_s["pruned"] == 54.0
    assert (spent.epochs, spent.epochs_spared) == (13, 7)


def test_tables_have_every_trial_and_every_setting():
    plan = make_plan()
    trials = [
        trial(0, 50, values={"optim.lr": 0.5, "model.head.pooling": "gap"}),
        trial(1, 90.123456789, values={"optim.lr": 1 / 3, "model.head.pooling": "isqrt",
              "model.head.pooling.num_iters": 3}),
        trial(2, ending="failed", reason="loss is nan, in step 3", values={"optim.lr": 1.0}),
    ]  # fmt: skip
    header, rows = table(plan.config, trials)
    assert header[:3] == ("trial", "val/top1", "optim.lr")
    assert [row[0] for row in rows] == ["t001", "t000", "t002"]
    assert rows[1][4] == ""
    read = list(csv.DictReader(io.StringIO(trials_csv(plan.config, trials))))
    assert [row["trial"] for row in read] == ["0", "1", "2"]
    assert float(read[1]["optim.lr"]) == 1 / 3
    assert float(read[1]["val/top1"]) == 90.123456789
    assert read[0]["model.head.pooling.num_iters"] == ""
    assert read[2]["reason"] == "loss is nan, in step 3"


# --- runs and status -----------------------------------------------------------------------------


def run(tags, metrics=None, state=State.FINISHED):
    return Job("r", "1", state, tags, metrics or {}, 1000, 9000, "mlflow-artifacts:/1/r")


def test_a_trial_is_read_from_its_run():
    values = {"optim.lr": 0.1, "model.head.pooling": "gap"}
    tags = {TAG_TRIAL: "7", TAG_VALUES: json.dumps(values), TAG_SECONDS: "4.5"}
    found = trial_of(run(tags, {"val/top1": 90.0, "progress/epoch": 3.0}))
    assert found == SweepTrial(
        7, values, {"val/top1": 90.0, "progress/epoch": 3.0}, "finished", 3, 4.5, "", "r"
    )
    assert trial_of(run({**tags, TAG_PRUNED: "true"}, state=State.KILLED)).ending == "pruned"
    assert trial_of(run(tags, state=State.KILLED)).ending == "running"
    assert trial_of(run(tags, state=State.FAILED)).ending == "failed"


def test_status_shows_what_a_sweep_came_to():
    plan = make_plan(objectives=("val/top1", "model/macs"))
    trials = [
        trial(0, 98.333333, 1e6, values={"optim.lr": 0.05, "model.head.pooling": "gap"}),
        trial(1, 99, 2e6, values={"optim.lr": 0.1, "model.head.pooling": "isqrt",
              "model.head.pooling.num_iters": 3}),
        trial(2, 60, epochs=2, ending="pruned"),
    ]  # fmt: skip
    found = result(plan.config, trials, plan.spec.resources, importance(plan.config, trials))
    tags = {
        "gcpctl.job_id": "tune-a",
        "gcpctl.kind": "tune",
        TAG_SPEC: plan.spec.model_dump_json(),
        TAG_RESULT: json.dumps(found),
    }
    shown = dict(details(run(tags), "http://x"))
    assert shown["trials"] == "2 finished, 1 pruned"
    reached = "val/top1 99, model/macs 2e+06"
    assert shown["best"] == f"t001: {reached} with lr=0.1, pooling=isqrt, num_iters=3"
    assert shown["front 2"].startswith("t000: val/top1 98.333, model/macs 1e+06")
    assert shown["importance"] == "needs 4 finished trials, and there are 2"
    assert "spared 18" in shown["cost"]
    assert "search" in shown
    waiting = details(run({k: v for k, v in tags.items() if k != TAG_RESULT}), "http://x")
    assert "best" not in dict(waiting)


def test_a_trials_cost_is_told_from_past_trainings():
    plan = make_plan(overrides=["epochs=10"])

    def past(seconds, epochs, workers, state=State.FINISHED):
        tags = {"gcpctl.kind": "train", "gcpctl.workers": str(workers)}
        return run(tags, {"time/train_s": seconds, "progress/epoch": epochs}, state)

    jobs = [past(20.0, 20, 2), past(3.0, 1, 1), past(5.0, 5, 1), past(1.0, 1, 1, State.FAILED)]
    found = sweep_preview.trial_cost(plan.config, jobs)
    assert (found.worker_s, found.jobs) == (20.0, 3)
    assert sweep_preview.trial_cost(plan.config, []) is None


def test_the_preview_has_conditions_and_points():
    plan = make_plan()
    rows = sweep_preview.dimension_rows(plan.config.space)
    assert rows[0] == ("optim.lr", "number, log", "0.001 to 1", "")
    assert rows[2] == (
        "model.head.pooling.num_iters", "whole number", "1 to 7", "model.head.pooling=isqrt",
    )  # fmt: skip
    header, points = sweep_preview.sample_rows(plan.config, 5)
    assert len(points) == 5
    assert header[0] == "optim.lr"
    assert sweep_preview.num_points(plan.config.space) is None
    assert sweep_preview.num_points(plan.config.space[1:]) == 8
