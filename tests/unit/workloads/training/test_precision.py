"""Half precision: weights stay whole, a loss scale falls where it must, and resume is exact."""

import pytest
import torch

from workloads.training import precision
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.failures import DivergedError


def run(config):
    context = MemoryContext()
    return train(config, context), context


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_it_computes_in_half_precision_and_keeps_whole_weights(kind, dtype, tiny, monkeypatch):
    seen = set()
    original = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional,
        "linear",
        lambda *a, **k: (seen.add((out := original(*a, **k)).dtype), out)[1],
    )
    _, context = run(tiny(epochs=1, steps_per_epoch=4, compute={"precision": kind}))
    assert seen == {dtype}
    saved = context.checkpoints[-1][1]
    assert {t.dtype for t in saved["model"].values() if t.is_floating_point()} == {torch.float32}
    momenta = [state["momentum_buffer"] for state in saved["optimizer"]["state"].values()]
    assert {momentum.dtype for momentum in momenta} == {torch.float32}


def test_bf16_learns(tiny):
    config = tiny(epochs=4, global_batch_size=32, model={}, compute={"precision": "bf16"})
    assert run(config)[0].best_top1 > 80.0


def test_an_overflow_is_left_out_and_halves_the_scale(tiny, monkeypatch):
    monkeypatch.setattr(precision, "_FIRST_SCALE", 2.0**40)
    config = tiny(compute={"precision": "fp16"}, epochs=3)
    result, context = run(config)
    skipped = result.skipped_steps
    assert 5 < skipped < 25
    steps = {at: values for _, at, values in context.metrics if "train/step_loss" in values}
    at_first = min(steps) - 1
    assert at_first > 5
    assert steps[at_first + 1]["optim/loss_scale"] == 2.0 ** (40 - at_first)
    assert context.metrics[-1][2]["train/skipped_steps"] == skipped
    assert context.checkpoints[-1][1]["loss_scale"]["scale"] == 2.0 ** (40 - skipped)


def test_a_scale_resumes_exactly(tiny, monkeypatch, hex_of, with_dropout):
    monkeypatch.setattr(precision, "_FIRST_SCALE", 2.0**36)
    config = tiny(compute={"precision": "fp16"})
    result, whole = run(config)
    for steps in (1, 9):
        asked = iter([False] * (steps - 1) + [True])
        context = MemoryContext(stop_when=lambda asked=asked: next(asked, False))
        assert train(config, context).stopped
        assert train(config, context) == result
        assert hex_of(context.metrics) == hex_of(whole.metrics)


def test_without_its_scale_a_resume_differs(tiny, monkeypatch):
    monkeypatch.setattr(precision, "_FIRST_SCALE", 2.0**36)
    config = tiny(compute={"precision": "fp16"})
    asked = iter([False] * 8 + [True])
    context = MemoryContext(stop_when=lambda: next(asked, False))
    train(config, context)
    del context.checkpoints[-1][1]["loss_scale"]
    assert train(config, context) != run(config)[0]


def test_a_fixed_scale_stays_and_says_when_it_is_too_large(tiny, monkeypatch):
    _, context = run(tiny(compute={"precision": "fp16", "loss_scale": 128.0}))
    scales = {v["optim/loss_scale"] for *_, v in context.metrics if "optim/loss_scale" in v}
    assert scales == {128.0}
    large = tiny(
        compute={"precision": "fp16", "loss_scale": 2.0**24},
        optim={"name": "sgd", "lr": 1e-6},
        label_smoothing=0.0,
        global_batch_size=2,
    )
    with pytest.raises(DivergedError, match=r"lower compute\.loss_scale"):
        run(large)


def test_gradients_are_clipped_at_their_own_size(tiny, plain_net):
    """In fp16 with a scale and in fp32: the same step, but for rounding."""
    found = []
    for compute in ({}, {"precision": "fp16", "loss_scale": 1024.0}):
        _, context = run(tiny(epochs=1, steps_per_epoch=1, clip_norm=0.05, compute=compute))
        found.append((context.metrics[0][2], context.checkpoints[-1][1]["model"]))
    (plain, plain_weights), (half, half_weights) = found
    assert half["optim/grad_norm"] == pytest.approx(plain["optim/grad_norm"], rel=0.02)
    for name in plain_weights:
        torch.testing.assert_close(half_weights[name], plain_weights[name], rtol=0.02, atol=1e-4)
