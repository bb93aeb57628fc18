"""What a training will take, from those of the past."""

import json
from dataclasses import replace

import pytest

from orchestrator.jobs.job import Job
from orchestrator.jobs.plan import Plan, Request, plan_train
from orchestrator.jobs.plan_study import as_job
from orchestrator.jobs.states import State
from orchestrator.results.past_cost import PastTrainings


def plan(*overrides: str, epochs: int = 10) -> Plan:
    return plan_train("digits_study", [f"epochs={epochs}", *overrides], Request())


def finished(past: Plan, **metrics: float) -> Job:
    known = {name.replace("__", "/"): value for name, value in metrics.items()}
    return replace(as_job(past), state=State.FINISHED, metrics=known)


def test_seconds_scale_with_the_epochs():
    past = PastTrainings([finished(plan(epochs=4), time__train_s=20.0, progress__epoch=4)])
    found = past.estimate(plan(epochs=10))
    assert (found.seconds, found.basis) == (50.0, "equal")


def test_another_seed_is_equal_and_another_head_is_similar():
    past = PastTrainings([finished(plan("seed=9"), time__train_s=20.0, progress__epoch=10)])
    assert past.estimate(plan()).basis == "equal"
    other = past.estimate(plan("model.head.pooling=gap"))
    assert (other.seconds, other.basis) == (20.0, "similar")


def test_the_equal_ones_count_where_there_are_any_and_their_median():
    jobs = [
        finished(plan("model.head.pooling=gap"), time__train_s=1.0, progress__epoch=10),
        *(finished(plan(), time__train_s=s, progress__epoch=10) for s in (30.0, 20.0, 900.0)),
    ]
    assert PastTrainings(jobs).estimate(plan()).seconds == 30.0


def test_without_the_total_the_newest_epoch_counts():
    past = PastTrainings([finished(plan(), time__epoch_s=1.5)])
    assert past.estimate(plan(epochs=4)).seconds == 6.0


@pytest.mark.parametrize(
    "override",
    ["job.num_workers=2", "job.cpus_per_worker=2", "job.gpus_per_worker=1", "steps_per_epoch=3",
     "global_batch_size=32", "images.size=12", "compute.precision=bf16", "data=image_folder",
     "model.backbone.width=24"],
)  # fmt: skip
def test_what_is_not_alike_tells_nothing(override):
    past = PastTrainings([finished(plan(), time__train_s=20.0, progress__epoch=10)])
    more = ["data.path=/x"] if override.startswith("data=") else []
    assert past.estimate(plan(override, *more)) is None


def test_nothing_known_is_said():
    assert PastTrainings([]).estimate(plan()) is None
    assert PastTrainings([finished(plan())]).estimate(plan()) is None


def test_jobs_of_earlier_releases_are_no_stumbling_block():
    job = finished(plan(), time__train_s=20.0, progress__epoch=10)
    spec = json.loads(job.tags["gcpctl.spec"])
    del spec["config"]["images"], spec["config"]["compute"]
    old = replace(job, tags={**job.tags, "gcpctl.spec": json.dumps(spec)})
    assert PastTrainings([old]).estimate(plan()) is None
