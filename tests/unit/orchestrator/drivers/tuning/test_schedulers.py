"""Schedulers decide after a kill as they would without, and stay within a sweep's workers."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from orchestrator.drivers.tuning.journal import Trial
from orchestrator.drivers.tuning.schedulers import (
    CappedHyperBand,
    Explorer,
    Population,
    build_scheduler,
    replay,
)
from orchestrator.drivers.tuning.trainable import EPOCH, SCORE
from orchestrator.jobs.space_text import parse_dimension
from workloads.config.sweep import (
    AshaConfig,
    HyperBandConfig,
    MedianConfig,
    Objective,
    PbtConfig,
    SchedulerConfig,
    SweepConfig,
)
from workloads.worker.spool import SpoolRow

SPACE = (
    "optim.lr=loguniform(1e-3, 1)",
    "optim.weight_decay=choice(0.0, 1e-4, 1e-3)",
    "label_smoothing=uniform(0, 0.3, 0.1)",
    "log_every_steps=int(1, 100)",
)


class Actor:
    """A trial as schedulers see it."""

    def __init__(self, name: str) -> None:
        self.trial_id, self.status = name, TuneTrial.RUNNING


def sweep_of(scheduler: SchedulerConfig | None, direction: str = "max") -> SweepConfig:
    objective = Objective(metric="val/top1", direction=direction)
    space = tuple(map(parse_dimension, SPACE))
    return SweepConfig(
        recipe="digits", base={}, space=space, scheduler=scheduler, objectives=(objective,)
    )


def build(scheduler: SchedulerConfig | None, direction: str = "max", cap: int = 2):
    sweep = sweep_of(scheduler, direction)
    return build_scheduler(sweep, epochs=9, cap=cap, stopping=lambda: False)


def curves(count: int, direction: str) -> list[list[float]]:
    rng = random.Random(0)
    sign = 1 if direction == "max" else -1
    return [[sign * (rng.uniform(0, 50) + 5 * e) for e in range(9)] for _ in range(count)]


def drive(scheduler, number: int, curve, first: int = 1) -> tuple[list[Trial], str]:
    """Let a trial report until it is stopped; return what is known of it and the last decision."""
    actor = Actor(f"t{number:03d}")
    controller = SimpleNamespace(get_live_trials=list)
    scheduler.on_trial_add(controller, actor)
    known = Trial(number, {}, number)
    decision = TrialScheduler.CONTINUE
    for epoch, value in enumerate(curve, start=1):
        known.rows.append(SpoolRow(epoch, epoch, epoch, {"val/top1": value}))
        known.epoch = epoch
        result = {EPOCH: epoch, SCORE: value}
        decision = scheduler.on_trial_result(controller, actor, result)
        if decision == TrialScheduler.STOP:
            break
    scheduler.on_trial_complete(
        controller, actor, {EPOCH: known.epoch, SCORE: curve[known.epoch - 1]}
    )
    known.end = "pruned" if decision == TrialScheduler.STOP and known.epoch < 9 else "finished"
    return known, decision


@pytest.mark.parametrize("config", [AshaConfig(), MedianConfig()], ids=["asha", "median"])
@pytest.mark.parametrize("direction", ["max", "min"])
def test_decisions_are_the_same_after_a_kill(config, direction):
    whole = build(config, direction)
    trials = [drive(whole, n, curve)[0] for n, curve in enumerate(curves(12, direction))]
    assert {"pruned", "finished"} == {trial.end for trial in trials}
    killed = build(config, direction)
    replay(killed, trials[:7], "val/top1")
    after = [drive(killed, n, c)[0] for n, c in list(enumerate(curves(12, direction)))[7:]]
    assert [(t.number, t.epoch, t.end) for t in after] == [
        (t.number, t.epoch, t.end) for t in trials[7:]
    ]


def test_without_one_every_trial_goes_to_its_end():
    assert type(build(None)) is FIFOScheduler


def test_a_trial_that_diverged_spoils_no_median():
    scheduler = build(MedianConfig(min_trials=1))
    drive(scheduler, 0, [10.0] * 9)
    lost = Actor("t001")
    scheduler.on_trial_add(None, lost)
    scheduler.on_trial_complete(None, lost, {EPOCH: 1})  # no score
    assert drive(scheduler, 2, [1.0] * 9)[0].end == "pruned"


@pytest.mark.parametrize(
    ("config", "kind"), [(HyperBandConfig(), CappedHyperBand), (PbtConfig(), Population)]
)
def test_paused_trials_wait_for_the_sweeps_own_workers(config, kind, monkeypatch):
    scheduler = build(config, cap=2)
    assert isinstance(scheduler, kind)
    paused = SimpleNamespace(status=TuneTrial.PAUSED)
    base = kind.__mro__[2]
    monkeypatch.setattr(base, "choose_trial_to_run", lambda self, controller: paused)
    running = [SimpleNamespace(status=TuneTrial.RUNNING) for _ in range(2)]
    busy = SimpleNamespace(get_trials=lambda: [*running, paused])
    free = SimpleNamespace(get_trials=lambda: [*running[:1], paused])
    assert scheduler.choose_trial_to_run(busy) is None
    assert scheduler.choose_trial_to_run(free) is paused
    scheduler.stopping = lambda: True
    assert scheduler.choose_trial_to_run(free) is None


def test_exploring_stays_in_the_space_and_near():
    sweep = sweep_of(PbtConfig(resample_probability=0.0))
    explorer = Explorer(sweep, sweep.scheduler)
    values = {
        "optim.lr": 0.9,
        "optim.weight_decay": 1e-4,
        "label_smoothing": 0.3,
        "log_every_steps": 50,
    }
    seen = [explorer.explore(values) for _ in range(50)]
    assert {v["optim.lr"] for v in seen} == {0.9 * 0.8, 1.0}
    assert {v["optim.weight_decay"] for v in seen} == {0.0, 1e-3}
    assert {v["label_smoothing"] for v in seen} == {0.2, 0.3}
    assert {v["log_every_steps"] for v in seen} == {40, 62}


def test_exploring_draws_anew_now_and_then():
    sweep = sweep_of(PbtConfig(resample_probability=1.0))
    first, again = (Explorer(sweep, sweep.scheduler) for _ in range(2))
    values = {"optim.lr": 0.5}
    drawn = [first.explore(values) for _ in range(20)]
    assert len({v["optim.lr"] for v in drawn}) == 20
    assert all(1e-3 <= v["optim.lr"] <= 1 for v in drawn)
    assert drawn == [again.explore(values) for _ in range(20)]
