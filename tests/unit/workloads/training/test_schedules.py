import math
import typing

import pytest

from workloads.config.optim import ScheduleConfig
from workloads.config.train import TrainConfig
from workloads.training.schedules import SCHEDULES, learning_rate

CONSTANT = {"name": "constant"}
COSINE = {"name": "cosine"}
FLOOR = {"name": "cosine", "final_lr_ratio": 0.1}
WARM = {"name": "cosine", "warmup_epochs": 2.0}
FRACTION = {"name": "constant", "warmup_epochs": 0.25}
STEP = {"name": "step", "milestones": [3, 6], "gamma": 0.1}


@pytest.mark.parametrize(
    ("schedule", "step", "want"),
    [
        (CONSTANT, 0, 1.0),
        (CONSTANT, 99, 1.0),
        (COSINE, 0, 1.0),
        (COSINE, 50, 0.5),
        (COSINE, 25, 0.5 * (1 + math.cos(math.pi / 4))),
        (COSINE, 100, 0.0),
        (FLOOR, 50, 0.55),
        (FLOOR, 100, 0.1),
        (WARM, 0, 1 / 20),
        (WARM, 9, 0.5),
        (WARM, 19, 1.0),
        (WARM, 20, 1.0),
        (WARM, 60, 0.5),
        (FRACTION, 0, 1 / 2.5),
        (FRACTION, 1, 2 / 2.5),
        (FRACTION, 2, 1.0),
        (STEP, 29, 1.0),
        (STEP, 30, 0.1),
        (STEP, 59, 0.1),
        (STEP, 60, 0.01),
    ],
)
def test_table(schedule, step, want):
    """Ten epochs of ten steps, peak rate 0.2."""
    config = TrainConfig.model_validate(
        {"epochs": 10, "schedule": schedule, "optim": {"name": "sgd", "lr": 0.2}}
    )
    assert learning_rate(config, 10, step) == pytest.approx(0.2 * want, abs=1e-15)


def test_every_config_has_a_schedule():
    choices, _ = typing.get_args(ScheduleConfig)
    configs = typing.get_args(choices)
    names = {typing.get_args(c.model_fields["name"].annotation)[0]: c for c in configs}
    assert set(names) == set(SCHEDULES)
    for name, config in names.items():
        factors = [SCHEDULES[name](config(name=name), epoch / 2, 10) for epoch in range(20)]
        assert factors[0] == 1.0
        assert factors == sorted(factors, reverse=True)
