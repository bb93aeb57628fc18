"""What the views of a study or sweep are made from."""

import json
from typing import Any

import pytest

from orchestrator.jobs.job import (
    TAG_BASELINE_CELL,
    TAG_JOB_ID,
    TAG_KIND,
    TAG_SEED,
    TAG_SPEC,
    Job,
    member_tag,
)
from orchestrator.jobs.states import State
from orchestrator.results.views import describe_study, describe_sweep
from workloads.config.train import TrainConfig
from workloads.config.validate import validate

ISQRT = {"model": {"head": {"pooling": {"name": "isqrt", "num_iters": 3}}}}
GAP = {"model": {"head": {"pooling": "gap"}}}


def job(job_id: str, kind: str, config: dict[str, Any], **fields: Any) -> Job:
    tags = {
        TAG_JOB_ID: job_id,
        TAG_KIND: kind,
        TAG_SPEC: json.dumps({"config": config}),
        **fields.pop("tags", {}),
    }
    return Job(
        run_id=f"run-{job_id}",
        experiment_id=fields.pop("experiment_id", "1"),
        state=fields.pop("state", State.FINISHED),
        tags=tags,
        metrics=fields.pop("metrics", {}),
        start_ms=0,
        end_ms=None,
        artifact_uri="",
    )


def training(name: str, cell: str, seed: int, document: dict[str, Any], **fields: Any) -> Job:
    config = validate(TrainConfig, {**document, "seed": seed}, name).model_dump(mode="json")
    tags = {member_tag("study"): cell, TAG_SEED: str(seed)}
    return job(name, "train", config, tags=tags, **fields)


PARENT = job("study", "ablation", {}, tags={TAG_BASELINE_CELL: "pooling=gap"})


def test_keys_that_some_cells_lack_are_no_axis() -> None:
    members = [
        training("a", "pooling=gap", 0, GAP),
        training("b", "pooling=isqrt", 0, ISQRT),
        training(
            "c",
            "pooling=isqrt5",
            1,
            {"model": {"head": {"pooling": {"name": "isqrt", "num_iters": 5}}}},
        ),
    ]
    facts = describe_study(PARENT, members)
    assert facts.common_keys == ("model.head.pooling.name",)
    assert facts.all_keys == ("model.head.pooling.name", "model.head.pooling.num_iters")


def test_the_baseline_is_one_that_has_finished_with_the_smallest_seed() -> None:
    members = [
        training("g0", "pooling=gap", 0, GAP, state=State.FAILED),
        training("g2", "pooling=gap", 2, GAP),
        training("g1", "pooling=gap", 1, GAP),
        training("i0", "pooling=isqrt", 0, ISQRT),
    ]
    facts = describe_study(PARENT, members)
    assert (facts.baseline_run, facts.baseline_seed) == ("run-g1", 1)


def test_a_baseline_that_waits_is_one_already() -> None:
    members = [
        training("g1", "pooling=gap", 1, GAP, state=State.SCHEDULED),
        training("g0", "pooling=gap", 0, GAP, state=State.SCHEDULED),
    ]
    facts = describe_study(PARENT, members)
    assert (facts.baseline_run, facts.baseline_seed) == ("run-g0", 0)
    assert facts.top1_range is None


def test_jobs_of_other_experiments_are_not_seen_by_a_view() -> None:
    members = [
        training("g0", "pooling=gap", 0, GAP, experiment_id="2"),
        training("i0", "pooling=isqrt", 0, ISQRT),
    ]
    facts = describe_study(PARENT, members)
    assert facts.baseline_run == ""
    assert facts.common_keys == ()


@pytest.mark.parametrize(
    ("finals", "expected"),
    [([90.0, 94.0], (86.0, 95.0)), ([97.0, 97.1], (96.0, 97.3)), ([20.0, 99.9], (0.0, 100.0))],
)
def test_the_end_of_the_curves_is_drawn_where_they_differ(
    finals: list[float], expected: tuple[float, float]
) -> None:
    members = [
        training(f"t{seed}", "pooling=gap", seed, GAP, metrics={"val/top1": final})
        for seed, final in enumerate(finals)
    ]
    assert describe_study(PARENT, members).top1_range == pytest.approx(expected, abs=0.06)


def test_a_sweep_draws_the_keys_that_every_trial_has() -> None:
    isqrt, cov = ({"model.head.pooling": [name]} for name in ("isqrt", "cov"))
    config = {
        "space": [
            {"key": "optim.lr", "when": {}},
            {"key": "model.head.pooling", "when": {}},
            {"key": "model.head.out_dim", "when": isqrt},
            {"key": "model.head.out_dim", "when": cov},
        ],
        "objectives": [{"metric": "val/top1", "direction": "max"}],
    }
    facts = describe_sweep(job("tune-x", "tune", config))
    assert facts.common_keys == ("optim.lr", "model.head.pooling")
    assert facts.all_keys == (*facts.common_keys, "model.head.out_dim")
    assert facts.objectives == (("val/top1", True),)
