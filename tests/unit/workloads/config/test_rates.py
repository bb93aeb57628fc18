"""Learning rates against tables of the papers and against generators written out step by step."""

import math
import subprocess
import sys
import typing

import pytest

from workloads.config.rates import FACTORS, first_epoch_at_rest, learning_rate, lr_factor
from workloads.config.schedule import ScheduleConfig
from workloads.config.train import TrainConfig
from workloads.config.validate import validate


def config_of(schedule, *, lr=1.0, epochs=10):
    document = {"epochs": epochs, "schedule": schedule, "optim": {"name": "sgd", "lr": lr}}
    return validate(TrainConfig, document, "test")


def rates(schedule, *, lr, epochs, steps=1):
    config = config_of(schedule, lr=lr, epochs=epochs)
    return [learning_rate(config, steps, s) for s in range(epochs * steps)]


CONSTANT = {"name": "constant"}
COSINE = {"name": "cosine"}
FLOOR = {"name": "cosine", "final_lr_ratio": 0.1}
WARM = {"name": "cosine", "warmup_epochs": 2.0}
FRACTION = {"name": "constant", "warmup_epochs": 0.25}
FROM_TENTH = {"name": "constant", "warmup_epochs": 2.0, "warmup_start": 0.1}
STEP = {"name": "step", "milestones": [3, 6], "gamma": 0.1}
COOL = {"name": "cosine", "cooldown_epochs": 2, "final_lr_ratio": 0.2}
OVERLAP = {"name": "cosine", "warmup_epochs": 2.0, "warmup_overlaps": True}
BY_EPOCH = {"name": "linear", "per": "epoch"}
WARM_BY_EPOCH = {"name": "constant", "per": "epoch", "warmup_epochs": 4.0}
POINTS = {"name": "piecewise", "epochs": [0, 2, 6], "factors": [1.0, 3.0, 0.5]}


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
        (FROM_TENTH, 0, 0.1),
        (FROM_TENTH, 10, 0.55),
        (FROM_TENTH, 20, 1.0),
        (STEP, 29, 1.0),
        (STEP, 30, 0.1),
        (STEP, 59, 0.1),
        (STEP, 60, 0.01),
        (COOL, 40, 0.6),
        (COOL, 80, 0.2),
        (COOL, 99, 0.2),
        (OVERLAP, 19, 1.0),
        (OVERLAP, 20, 0.5 * (1 + math.cos(0.2 * math.pi))),
        (OVERLAP, 50, 0.5),
        (BY_EPOCH, 19, 0.9),
        (BY_EPOCH, 20, 0.8),
        (BY_EPOCH, 99, 0.1),
        (WARM_BY_EPOCH, 9, 0.25),
        (WARM_BY_EPOCH, 10, 0.5),
        (WARM_BY_EPOCH, 30, 1.0),
        (POINTS, 0, 1.0),
        (POINTS, 15, 2.5),
        (POINTS, 20, 3.0),
        (POINTS, 40, 1.75),
        (POINTS, 99, 0.5),
        ({"name": "exponential", "gamma": 0.5}, 39, 0.125),
        ({"name": "exponential", "gamma": 0.5, "per": "step"}, 35, 0.5**3.5),
        ({"name": "exponential", "gamma": 0.5, "warmup_epochs": 2.0}, 30, 0.5),
        ({"name": "poly", "power": 3.0, "warmup_epochs": 5.0}, 75, 0.125),
        ({"name": "linear", "final_lr_ratio": 0.5, "warmup_epochs": 6.0}, 80, 0.75),
        ({"name": "gcp_poly", "horizon": 4, "power": 2.0}, 35, 0.25),
        ({"name": "gcp_poly", "horizon": 4, "power": 2.0, "first_epoch": 1}, 35, 0.0625),
        ({"name": "gcp_poly", "horizon": 4, "power": 2.5}, 99, 0.0),
    ],
)
def test_table(schedule, step, want):
    """Ten epochs of ten steps, peak rate 0.2."""
    config = config_of(schedule, lr=0.2)
    assert learning_rate(config, 10, step) == pytest.approx(0.2 * want, abs=1e-15)


# --- values of the CVPR 2020 paper's code (gcp-facts 4.1), e counted from 0 ----------------------

LRNORM = {"name": "step", "milestones": [30, 60, 90], "gamma": 0.1}
LRFAST = {"name": "gcp_poly", "horizon": 52, "power": 11.0}
LRADJU = {"name": "gcp_poly", "horizon": 49, "power": 2.0}
MOBILENET_LRADJU = {
    "name": "piecewise",
    "per": "epoch",
    "epochs": [0, 50, 100, 150],
    "factors": [1.0, 0.01 / 0.06, 0.001 / 0.06, 1e-5 / 0.06],
}


@pytest.mark.parametrize(
    ("schedule", "lr", "epochs", "digit", "want"),
    [
        (LRNORM, 0.1, 100, 1e-9, {0: 0.1, 29: 0.1, 30: 0.01, 60: 0.001, 89: 0.001, 90: 1e-4}),
        (
            LRFAST, 0.1, 30, 1e-6,
            {0: 0.123310, 1: 0.1, 2: 0.080767, 5: 0.041459, 10: 0.012363, 20: 0.000672, 29: 2.0e-5},
        ),
        (
            LRADJU, 0.1, 50, 1e-7,
            {0: 0.1041233, 1: 0.1, 10: 0.0666389, 25: 0.0260308, 40: 0.0041649, 49: 4.16e-5},
        ),
        (
            {"name": "exponential", "gamma": 0.98}, 0.045, 400, 1e-9,
            {0: 0.045, 1: 0.0441, 399: 0.045 * 0.98**399},
        ),
        ({"name": "exponential", "gamma": 0.92}, 0.06, 100, 1e-9, {0: 0.06, 2: 0.050784}),
        (
            MOBILENET_LRADJU, 0.06, 150, 1e-7,
            {0: 0.06, 50: 0.01, 51: 0.00982, 100: 0.001, 149: 2.98e-5},
        ),
    ],
)  # fmt: skip
def test_published_values_hold_for_a_whole_epoch(schedule, lr, epochs, digit, want):
    """To half of the last digit that is given."""
    found = rates(schedule, lr=lr, epochs=epochs, steps=3)
    for epoch, rate in want.items():
        assert found[3 * epoch : 3 * epoch + 3] == pytest.approx([rate] * 3, rel=0, abs=digit / 2)


def test_lrfast_begins_above_the_peak_and_the_papers_text_at_it():
    assert rates(LRFAST, lr=0.1, epochs=30)[0] > 0.1
    of_text = rates({**LRFAST, "first_epoch": 1}, lr=0.1, epochs=30)
    assert of_text[0] == pytest.approx(0.1)
    assert of_text[:-1] == pytest.approx(rates(LRFAST, lr=0.1, epochs=30)[1:])


@pytest.mark.parametrize("epochs", [240, 60, 100])
def test_shufflenet_falls_with_each_iteration_and_ends_above_zero(epochs):
    """0.5 (1 - step / total), 1,281,167 images in batches of 1024."""
    steps = 1251
    config = config_of({"name": "linear"}, lr=0.5, epochs=epochs)
    total = steps * epochs
    assert learning_rate(config, steps, 0) == 0.5
    assert learning_rate(config, steps, total // 2) == pytest.approx(0.25)
    assert learning_rate(config, steps, total - 1) == pytest.approx(0.5 / total)


# --- generators of the TPAMI 2023 code (gcp-facts 4.3), for total steps T and warm-up W ----------

EPOCHS, STEPS = 10, 7
T = EPOCHS * STEPS


def warm(i, w, low, high):
    return low + (high - low) * i / w


@pytest.mark.parametrize("warmup", [0, 2])
def test_seed_linear(warmup):
    w = warmup * STEPS
    want = [
        warm(i, w, 0.08, 0.8) if i < w else 0.8 - (0.8 - 0.004) * (i - w) / (T - w)
        for i in range(T)
    ]
    schedule = {
        "name": "linear",
        "final_lr_ratio": 0.005,
        "warmup_epochs": float(warmup),
        "warmup_start": 0.1,
    }
    assert rates(schedule, lr=0.8, epochs=EPOCHS, steps=STEPS) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("warmup", [0, 5])
def test_seed_poly(warmup):
    w = warmup * STEPS
    want = [
        warm(i, w, 0.01, 0.1) if i < w else 0.1 * (1 - (i - w) / (T - w)) ** 2 for i in range(T)
    ]
    schedule = {
        "name": "poly",
        "power": 2.0,
        "warmup_epochs": float(warmup),
        "warmup_start": 0.1,
    }
    assert rates(schedule, lr=0.1, epochs=EPOCHS, steps=STEPS) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("warmup", [0, 3])
def test_seed_cosine_decay(warmup):
    """Its warm-up gives the first step one part; its cosine counts all steps, its line does not."""
    w = warmup * STEPS
    want = [
        0.3 * (i + 1) / w
        if i < w
        else 0.3 * ((T - i) / (T - w) * 0.5 * (1 + math.cos(0.94 * math.pi * i / (T - w))) + 1e-5)
        for i in range(T)
    ]
    schedule = {"name": "cosine_decay", "warmup_epochs": float(warmup)}
    assert rates(schedule, lr=0.3, epochs=EPOCHS, steps=STEPS) == pytest.approx(want, rel=1e-9)


def test_seed_steps():
    """Times 0.1 at 0.3, 0.6 and 0.8 of all steps."""
    want = [0.8 * 0.1 ** sum(i >= share * T for share in (0.3, 0.6, 0.8)) for i in range(T)]
    schedule = {"name": "step", "milestones": [3, 6, 8], "gamma": 0.1}
    assert rates(schedule, lr=0.8, epochs=EPOCHS, steps=STEPS) == pytest.approx(want)


# --- DeiT, as timm computes it ------------------------------------------------------------------


def test_deit_per_epoch():
    """300 epochs of cosine and 10 of cooldown; warm-up hides the curve's first five epochs."""
    lr, low, start = 1e-3, 1e-5, 1e-6
    want = [
        start + e * (lr - start) / 5
        if e < 5
        else low + 0.5 * (lr - low) * (1 + math.cos(math.pi * min(e, 300) / 300))
        for e in range(310)
    ]
    schedule = {
        "name": "cosine",
        "per": "epoch",
        "final_lr_ratio": low / lr,
        "cooldown_epochs": 10,
        "warmup_epochs": 5.0,
        "warmup_start": start / lr,
        "warmup_overlaps": True,
    }
    found = rates(schedule, lr=lr, epochs=310, steps=2)
    assert found[::2] == found[1::2]
    assert found[::2] == pytest.approx(want, rel=1e-12)


# --- all schedules ------------------------------------------------------------------------------

NEEDED = {"piecewise": {"epochs": (0, 10), "factors": (1.0, 0.0)}}


def every_schedule():
    choices, _ = typing.get_args(ScheduleConfig)
    for config in typing.get_args(choices):
        name = typing.get_args(config.model_fields["name"].annotation)[0]
        yield name, config(name=name, **NEEDED.get(name, {}))


def test_every_config_has_a_schedule():
    configs = dict(every_schedule())
    assert set(configs) == set(FACTORS)
    for name, config in configs.items():
        factors = [FACTORS[name](config, epoch / 2, 10) for epoch in range(20)]
        assert factors[0] == pytest.approx(1.2331 if name == "gcp_poly" else 1.0, rel=1e-4)
        assert factors == sorted(factors, reverse=True), name
        assert min(factors) >= 0.0


@pytest.mark.parametrize(("name", "config"), list(every_schedule()))
@pytest.mark.parametrize("warmup", [0.0, 0.37, 3.0])
def test_per_epoch_is_the_rate_of_the_epochs_first_step(name, config, warmup):
    warm_up = {"warmup_epochs": warmup, "warmup_start": 0.2}
    by_step, by_epoch = (
        type(config).model_validate({**config.model_dump(), **warm_up, "per": per})
        if name != "gcp_poly"
        else config
        for per in ("step", "epoch")
    )
    for step in range(0, 100):
        first = lr_factor(by_step, epochs=10, steps_per_epoch=10, global_step=step // 10 * 10)
        held = lr_factor(by_epoch, epochs=10, steps_per_epoch=10, global_step=step)
        assert held == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        ({"name": "gcp_poly", "horizon": 7}, 8),
        ({"name": "gcp_poly", "horizon": 9}, None),
        ({"name": "piecewise", "epochs": [0, 4], "factors": [1.0, 0.0]}, 4),
        ({"name": "piecewise", "epochs": [0, 10], "factors": [0.0, 1.0]}, None),
        ({"name": "cosine", "cooldown_epochs": 3}, 7),
        ({"name": "cosine", "cooldown_epochs": 3, "final_lr_ratio": 0.01}, None),
        ({"name": "linear"}, None),
    ],
)
def test_epochs_that_would_change_nothing(schedule, want):
    assert first_epoch_at_rest(config_of(schedule, epochs=10)) == want
    assert first_epoch_at_rest(config_of({"name": "linear"}, epochs=1)) is None


def test_rates_need_no_torch():
    program = "import sys, workloads.config.rates; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.stdout == "False\n", answer.stderr
