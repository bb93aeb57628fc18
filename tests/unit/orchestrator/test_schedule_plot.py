"""Pictures of schedules: the numbers that a training uses, and a picture that can be opened."""

import pytest
from PIL import Image

from orchestrator.results.schedule_plot import curve_of, draw_schedules
from workloads.config.document import apply_overrides
from workloads.config.rates import learning_rate
from workloads.config.train import TrainConfig
from workloads.config.validate import validate


def config(*overrides: str) -> TrainConfig:
    return validate(TrainConfig, apply_overrides({}, overrides), "x")


@pytest.mark.parametrize("epochs", [1, 3, 700])
@pytest.mark.parametrize("schedule", ["cosine", "step", "gcp_poly", "constant"])
def test_a_curve_has_the_rates_of_the_training(schedule, epochs):
    chosen = config(f"schedule={schedule}", f"epochs={epochs}")
    curve = curve_of("x", chosen, 7)
    assert curve.epochs[0] == 0.0
    assert curve.epochs[-1] == (epochs * 7 - 1) / 7
    for epoch, rate in zip(curve.epochs, curve.rates, strict=True):
        assert rate == learning_rate(chosen, 7, round(epoch * 7))


def test_a_milestone_is_not_lost_among_many_steps():
    curve = curve_of("x", config("schedule=step", "epochs=100"), 5000)
    jumps = [
        (later, after / before)
        for later, before, after in zip(
            curve.epochs[1:], curve.rates, curve.rates[1:], strict=False
        )
        if after != before
    ]
    assert jumps == [(epoch, pytest.approx(0.1)) for epoch in (30, 60, 90)]


def test_the_row_says_first_highest_and_last_rate():
    row = curve_of("x", config("optim.lr=0.4", "schedule.warmup_epochs=2"), 10).row()
    assert row[:4] == ("x", "20", "0.02", "0.4")
    assert len(row[5]) == 30
    assert (row[5][0], row[5][-1]) == ("▁", "▁")
    assert "█" in row[5]


def test_steps_are_those_asked_for_then_those_of_the_recipe():
    assert curve_of("x", config("steps_per_epoch=4"), 9).steps_per_epoch == 9
    assert curve_of("x", config("steps_per_epoch=4")).steps_per_epoch == 4
    assert curve_of("x", config()).steps_per_epoch == 100


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["schedule=step", "epochs=100"],
        ["schedule={name: piecewise, epochs: [0, 9], factors: [1, 0]}"],
        ["freeze.until_epoch=5", "progressive=[{from_epoch: 0, size: 6}, {from_epoch: 9, size: 8}]",
         "schedule.warmup_epochs=2", "schedule.cooldown_epochs=2"],
    ],
)  # fmt: skip
def test_pictures_can_be_opened(tmp_path, overrides):
    path = tmp_path / "one.png"
    draw_schedules([curve_of("one", config(*overrides))], path)
    with Image.open(path) as picture:
        assert picture.size == (1200, 750)
        assert len(picture.convert("L").getcolors()) > 10


def test_two_schedules_in_one_picture_differ_from_one(tmp_path):
    one, two = curve_of("one", config()), curve_of("two", config("schedule=linear"))
    draw_schedules([one], tmp_path / "one.png")
    draw_schedules([one, two], tmp_path / "two.png")
    pictures = [Image.open(tmp_path / name).convert("RGB") for name in ("one.png", "two.png")]
    orange = (255, 127, 14)  # the second colour of the cycle
    shown = [orange in {color for _, color in p.getcolors(1 << 24)} for p in pictures]
    assert shown == [False, True]
