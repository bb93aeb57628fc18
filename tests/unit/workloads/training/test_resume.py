"""Stopping and going on changes no bit; leaving any part of the state out does."""

import pytest
import torch

from workloads.config.train import TrainConfig
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.failures import CheckpointError

STEPS_PER_EPOCH = 11
TINY = {"backbone": {"name": "small_resnet", "width": 4, "blocks": [1]}}


class StepCounter:
    """Asks to stop after so many steps."""

    def __init__(self, steps):
        self.left = steps

    def __call__(self):
        self.left -= 1
        return self.left == 0


class Forgetful(MemoryContext):
    """Loses a part of the state on the way back."""

    forget = staticmethod(lambda state: None)

    def load_checkpoint(self):
        state = super().load_checkpoint()
        if state is not None:
            self.forget(state)
        return state


@pytest.fixture
def whole(tiny, with_dropout, hex_of):
    context = MemoryContext()
    result = train(tiny(), context)
    return result, hex_of(context.metrics)


def resume_after(config, steps, forget=lambda state: None):
    context = Forgetful(stop_when=StepCounter(steps))
    context.forget = forget
    first = train(config, context)
    assert first.stopped
    context.stop_when = lambda: False
    return train(config, context), context


@pytest.mark.parametrize("steps", [1, 5, 10, 11, 14])
def test_stop_and_resume_equals_uninterrupted(steps, tiny, whole, hex_of):
    """In mid-epoch, at the last step of an epoch and right after one."""
    result, context = resume_after(tiny(), steps)
    assert (result, hex_of(context.metrics)) == whole


def test_going_back_to_an_epochs_end_equals_uninterrupted(tiny, whole, hex_of):
    """A kill in epoch 2: the steps since the end of epoch 1 are done again."""
    killed = MemoryContext(stop_when=StepCounter(15))
    train(tiny(), killed)
    killed.checkpoints.pop()  # what the polite stop saved
    killed.metrics = [m for m in killed.metrics if m[1] <= STEPS_PER_EPOCH]
    killed.stop_when = lambda: False
    result = train(tiny(), killed)
    assert (result, hex_of(killed.metrics)) == whole


def test_every_step_can_be_a_stop(tiny, whole, hex_of):
    context = MemoryContext(stop_when=lambda: True)
    for _ in range(40):
        result = train(tiny(), context)
        if not result.stopped:
            break
    assert (result, hex_of(context.metrics)) == whole


def test_a_finished_training_only_reports_again(tiny, whole):
    context = MemoryContext()
    first = train(tiny(), context)
    logged = len(context.metrics)
    assert train(tiny(), context) == first == whole[0]
    assert len(context.metrics) == logged


def drop_momentum(state):
    state["optimizer"]["state"] = {}


def drop_rng(state):
    state["ranks"][0]["rng"]["torch"] = torch.Generator().manual_seed(99).get_state()


def drop_numpy(state):
    name, keys, *rest = state["ranks"][0]["rng"]["numpy"]
    state["ranks"][0]["rng"]["numpy"] = (name, keys.roll(1), *rest)


def drop_python(state):
    version, words, gauss = state["ranks"][0]["rng"]["python"]
    state["ranks"][0]["rng"]["python"] = (version, (*words[1:-1], words[0], words[-1]), gauss)


def drop_offset(state):
    state["train"]["step_in_epoch"] -= 1
    state["train"]["global_step"] -= 1


def drop_schedule(state):
    state["train"]["global_step"] += 1


def drop_meters(state):
    state["ranks"][0]["meters"] = [0.0, 0.0, 0.0, 0.0]


def drop_running_statistics(state):
    for name, value in state["model"].items():
        if name.endswith("running_mean"):
            value.zero_()


def drop_weight_bit(state):
    first = next(iter(state["model"].values()))
    first.view(-1)[0] *= 1 + 2**-23


@pytest.mark.parametrize(
    "forget",
    [
        drop_momentum,
        drop_rng,
        drop_numpy,
        drop_python,
        drop_offset,
        drop_schedule,
        drop_meters,
        drop_running_statistics,
        drop_weight_bit,
    ],
)
def test_leaving_a_part_out_is_seen(forget, tiny, whole, hex_of):
    result, context = resume_after(tiny(), 5, forget)
    seen = {}
    for step, _, values in context.metrics:
        seen.update({(key, step): value.hex() for key, value in values.items()})
    whole_result, whole_metrics = whole
    same = all(seen.get(name) == value for name, value in whole_metrics.items())
    assert not (same and result == whole_result)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"global_batch_size": 64}, "global batch size: checkpoint 128, this job 64"),
        (
            {"model": {**TINY, "head": {"reduced_channels": 4, "pooling": {"name": "gap"}}}},
            "network's head.classifier.weight: checkpoint [10, 10], this job [10, 4]",
        ),
        ({"model": {}}, "  and 31 more"),
        ({"optim": {"name": "adamw"}}, "optimizer: checkpoint 'sgd', this job 'adamw'"),
    ],
)
def test_another_job_is_refused_with_both_sides(change, shown, tiny):
    context = MemoryContext(stop_when=lambda: True)
    train(tiny(), context)
    other = TrainConfig.model_validate({**tiny().model_dump(), **change})
    with pytest.raises(CheckpointError) as info:
        train(other, context)
    assert shown in str(info.value)


def test_other_classes_are_refused(tiny):
    context = MemoryContext(stop_when=lambda: True)
    train(tiny(), context)
    context.checkpoints[-1][1]["identity"]["classes"][0] = "aardvark"
    with pytest.raises(CheckpointError, match=r"classes: checkpoint .*aardvark"):
        train(tiny(), context)


def test_weights_in_another_order_are_refused(tiny):
    """The optimizer knows them by number: each would get the momentum of another."""
    context = MemoryContext(stop_when=lambda: True)
    train(tiny(), context)
    saved = context.checkpoints[-1][1]
    saved["model"] = dict(reversed(saved["model"].items()))
    with pytest.raises(CheckpointError, match="weights in another order"):
        train(tiny(), context)


def test_other_surroundings_are_said(tiny, capsys):
    context = MemoryContext(stop_when=StepCounter(1))
    train(tiny(), context)
    context.stop_when = lambda: False
    context.checkpoints[-1][1]["surroundings"]["torch"] = "1.0"
    train(tiny(), context)
    assert "warning: torch was 1.0" in capsys.readouterr().out


def test_settings_of_the_optimizer_come_from_the_config(tiny):
    """Its memory is restored, its settings are those of the job that resumes."""

    def resumed(momentum_at_resume):
        context = MemoryContext(stop_when=StepCounter(3))
        train(tiny(), context)
        context.stop_when = lambda: False
        optim = {"name": "sgd", "momentum": momentum_at_resume}
        train(tiny(optim=optim), context)
        (group,) = context.checkpoints[-1][1]["optimizer"]["param_groups"]
        return group["momentum"], context.result.weights_sha256

    momentum, weights = resumed(0.5)
    assert momentum == 0.5
    assert weights != resumed(0.9)[1]


def test_an_identical_network_under_another_config_resumes(tiny, capsys):
    """What makes a checkpoint fit is what it holds, not how its config is written."""
    context = MemoryContext(stop_when=StepCounter(1))
    train(tiny(), context)
    context.stop_when = lambda: False
    pooling = {"name": "isqrt", "num_iters": 4}
    train(tiny(model={**TINY, "head": {"reduced_channels": 4, "pooling": pooling}}), context)
    assert "warning: config was" in capsys.readouterr().out


def test_a_stop_works_with_one_step_per_epoch(tiny):
    context = MemoryContext(stop_when=StepCounter(2))
    config = tiny(epochs=4, steps_per_epoch=1)
    result = train(config, context)
    assert (result.stopped, result.epochs, result.global_step) == (True, 2, 2)
    assert [step for step, _, _ in context.checkpoints] == [1, 2]
    context.stop_when = lambda: True  # heard too late: nothing is left to stop
    assert train(config, context).stopped
    assert not train(config, context).stopped


def test_seconds_of_another_number_of_ranks(tiny):
    """Two ranks of 3 s each took 3 s; what goes on alone has taken 3 s, not 6."""
    context = MemoryContext(stop_when=StepCounter(5))
    train(tiny(), context)
    state = context.checkpoints[-1][1]
    (own,) = state["ranks"]
    own["meters"][3] = 3000.0
    empty = {**own, "meters": [0.0, 0.0, 0.0, 3000.0]}
    state["ranks"] = [own, empty]
    context.stop_when = lambda: False
    train(tiny(), context)
    first = next(values for step, _, values in context.metrics if "time/epoch_s" in values)
    assert 3000.0 <= first["time/epoch_s"] < 3100.0


@pytest.mark.parametrize("steps", [3])
def test_loader_processes_stopped_in_mid_epoch(steps, image_folder, hex_of):
    """Images decoded by two processes, augmented, stopped and gone on with."""
    config = TrainConfig.model_validate(
        {
            "data": {
                "name": "image_folder",
                "path": str(image_folder),
                "loader_workers": 2,
            },
            "images": {"size": 8},
            "model": TINY,
            "epochs": 1,
            "global_batch_size": 4,
            "log_every_steps": 1,
        }
    )
    whole = MemoryContext()
    result = train(config, whole)
    assert result.global_step == 6
    resumed, context = resume_after(config, steps)
    assert (resumed, hex_of(context.metrics)) == (result, hex_of(whole.metrics))


EVERYTHING = {
    "parts, pairs, average, memory": {
        "compute": {"max_images_per_worker": 50, "channels_last": True},
        "mix": {"mixup": 0.8, "cutmix": 1.0, "probability": 0.7},
        "ema": {"decay": 0.9, "every_steps": 2, "warmup": True},
        "clip_norm": 0.5,
        "optim": {"name": "sgd", "nesterov": True, "lr_factors": {"classifier": 5.0}},
    },
    "held parts, sizes, rare validation": {
        "freeze": {"parts": ["features"], "until_epoch": 1},
        "progressive": [{"from_epoch": 0, "size": 6}, {"from_epoch": 1, "size": 8}],
        "validation": {"every_epochs": 2},
        "compute": {"precision": "bf16"},
        "optim": {"name": "adamw", "lr": 0.01, "decay_norms_and_biases": False},
        "schedule": {"name": "gcp_poly"},
    },
    "adaptive rates, a rate for each epoch": {
        "optim": {"name": "lars"},
        "schedule": {"name": "step", "milestones": [1], "per": "epoch"},
        "label_smoothing_over": "others",
        "checkpoint": {"every_epochs": 2},
        "early_stopping": {"patience_epochs": 1, "metric": "loss"},
    },
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_feature_resumes_exactly(name, tiny, with_dropout, hex_of):
    """Stopped in the first epoch, at its end, and in the second."""
    config = tiny(**EVERYTHING[name], steps_per_epoch=5)
    whole = MemoryContext()
    result = train(config, whole)
    context = MemoryContext()
    for steps in (2, 3, 3):
        context.stop_when = StepCounter(steps)
        assert train(config, context).stopped
    context.stop_when = lambda: False
    assert train(config, context) == result
    assert hex_of(context.metrics) == hex_of(whole.metrics)
    for ours, theirs in zip(
        *(c.checkpoints[-1][1]["optimizer"]["state"].values() for c in (context, whole)),
        strict=True,
    ):
        for key, value in theirs.items():
            assert torch.equal(ours[key], value)
            assert ours[key].stride() == value.stride()


def test_without_its_average_a_resume_differs(tiny):
    def forget(state):
        for value in state["ema"].values():
            value.zero_()

    config = tiny(ema={"decay": 0.9})
    whole = MemoryContext()
    train(config, whole)
    _, context = resume_after(config, 5, forget)
    ends = [c.checkpoints[-1][1]["ema"]["head.classifier.weight"] for c in (whole, context)]
    assert not torch.equal(*ends)


def test_a_checkpoint_from_before_the_new_entries_resumes(tiny, with_dropout, whole, hex_of):
    """What it lacks was not there; with those features off nothing is missed."""

    def age(state):
        for entry in ("groups", "loss_scale"):
            del state[entry]
        del state["identity"]["moving average"]
        for entry in ("skipped_steps", "skipped_in_row", "improved_to", "improved_epoch"):
            del state["train"][entry]
        del state["train"]["stopped_early"]
        for group in state["optimizer"]["param_groups"]:
            group.pop("lr_factor", None)

    result, context = resume_after(tiny(), 5, age)
    assert (result, hex_of(context.metrics)) == whole


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"ema": {}}, "moving average: checkpoint False, this job True"),
        ({"optim": {"name": "sgd", "no_decay_parts": ["classifier"]}}, "weights in other groups"),
    ],
)
def test_features_that_a_checkpoint_does_not_have_are_refused(change, shown, tiny):
    context = MemoryContext(stop_when=lambda: True)
    train(tiny(), context)
    with pytest.raises(CheckpointError, match=shown):
        train(tiny(**change), context)


def test_a_checkpoint_of_a_newer_version_is_refused(tiny):
    context = MemoryContext(stop_when=lambda: True)
    train(tiny(), context)
    context.checkpoints[-1][1]["train"]["half_life"] = 3
    with pytest.raises(CheckpointError, match="newer version: half_life of its state"):
        train(tiny(), context)
