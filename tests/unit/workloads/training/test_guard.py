"""A gradient that is not finite: nothing comes of it, and the message says where it began."""

import itertools
import math
import re

import pytest
import torch

from workloads.data.loaders import epoch_order, train_batches
from workloads.training.guard import FiniteGuard
from workloads.training.loop import train
from workloads.training.network import prepare_network
from workloads.training.run import build_run
from workloads.training.step import take_step
from workloads.worker.context import MemoryContext
from workloads.worker.failures import DivergedError

SKIP = {"action": "skip"}
BAD_STEP = 7


@pytest.fixture
def bad_image(spoil):
    """One image of the seventh batch of the first epoch is NaN."""
    image = int(epoch_order(1438, 0, 0)[128 * (BAD_STEP - 1) + 100])
    spoil(image)
    return image


def test_stop_names_batch_and_layer_before_the_update(tiny, bad_image, monkeypatch):
    steps = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda *a, **k: (steps.append(1), original(*a, **k))
    )
    context = MemoryContext()
    with pytest.raises(DivergedError) as info:
        train(tiny(checkpoint={"every_steps": 3}), context)
    message = str(info.value)
    assert "not finite at step 7 (epoch 1, step 7 of 11 in it, learning rate 0.099" in message
    names = build_run(tiny(), MemoryContext()).data.train_names
    first = [names[n] for n in epoch_order(1438, 0, 0)[128 * 6 : 128 * 6 + 5].tolist()]
    assert f"first seen in the images on rank 0 with training images {', '.join(first)}" in message
    assert "and 123 more; nothing was saved" in message
    assert len(steps) == 6
    assert [step for step, _, _ in context.checkpoints] == [3, 6]
    assert [at for _, at, _ in context.metrics] == [1, 2, 3, 4, 5, 6]


def test_the_part_with_the_bad_image_is_named(tiny, bad_image):
    with pytest.raises(DivergedError) as info:
        train(tiny(compute={"max_images_per_worker": 4}), MemoryContext())
    named = re.search(r"with training images ([^;]+);", str(info.value))[1].split(", ")
    assert len(named) == 4
    assert build_run(tiny(), MemoryContext()).data.train_names[bad_image] in named


def test_a_layer_that_overflows_is_named(tiny, monkeypatch):
    run = build_run(tiny(), MemoryContext())
    prepare_network(run)
    with torch.no_grad():
        run.model.features.stages[0][0].conv1.weight.fill_(1e38)
    batch = next(iter(train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)))
    with pytest.raises(DivergedError, match=r"first seen in features\.stages\.0\.0\.conv1 on rank"):
        take_step(run, FiniteGuard(run), *batch)


def test_a_gradient_alone_is_named(tiny):
    """The loss is finite; the way back is not."""
    run = build_run(tiny(), MemoryContext())
    prepare_network(run)
    run.model.head.classifier.weight.register_hook(lambda grad: grad * math.inf)
    batch = next(iter(train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)))
    with pytest.raises(DivergedError, match=r"seen in the gradient of head\.classifier\.weight;"):
        take_step(run, FiniteGuard(run), *batch)


@pytest.mark.parametrize("settings", [{"log_every_steps": 10}, {"clip_norm": 1.0}])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_single_bad_number_is_seen_at_every_step(settings, value, tiny):
    """Also where no norm is worked out because nobody asks for it."""
    run = build_run(tiny(**settings), MemoryContext())
    prepare_network(run)
    batch = next(iter(train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)))
    sound = take_step(run, FiniteGuard(run), *batch)
    assert (sound.grad_norm is None) == ("clip_norm" not in settings)

    def spoil(grad):
        grad = grad.clone()
        grad[-1, -1, -1, -1] = value
        return grad

    run.model.features.stages[0][0].conv1.weight.register_hook(spoil)
    with pytest.raises(DivergedError, match=r"at step 2 .*the gradient of features\.stages\.0\.0"):
        take_step(run, FiniteGuard(run), *batch)


def test_the_look_at_the_gradients_changes_none(tiny):
    run = build_run(tiny(log_every_steps=10), MemoryContext())
    prepare_network(run)
    batch = next(iter(train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)))
    seen = []
    run.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(p.grad.clone() for p in run.model.parameters())
    )
    hooked = []
    for parameter in run.model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: hooked.append((p, p.grad.clone())))
    take_step(run, FiniteGuard(run), *batch)
    before = {id(parameter): grad for parameter, grad in hooked}
    for parameter, after in zip(run.model.parameters(), seen, strict=True):
        assert torch.equal(before[id(parameter)], after)


def test_skip_leaves_the_step_out_and_counts_it(tiny, bad_image):
    """Weights, momentum, running statistics and sums are as if the batch had not been."""
    context = MemoryContext()
    result = train(tiny(non_finite=SKIP, checkpoint={"every_steps": 1}, epochs=1), context)
    assert (result.global_step, result.skipped_steps) == (11, 1)
    states = {step: state for step, state, _ in context.checkpoints}
    before, after = states[BAD_STEP - 1], states[BAD_STEP]
    for name, value in before["model"].items():
        assert torch.equal(value, after["model"][name]), name
    momenta = [s["optimizer"]["state"][0]["momentum_buffer"] for s in (before, after)]
    assert torch.equal(*momenta)
    assert before["ranks"][0]["meters"][:3] == after["ranks"][0]["meters"][:3]
    assert (before["train"]["skipped_steps"], after["train"]["skipped_in_row"]) == (0, 1)
    assert states[BAD_STEP + 1]["train"]["skipped_in_row"] == 0
    epoch = context.metrics[-1][2]
    assert epoch["train/skipped_steps"] == 1.0
    assert math.isfinite(epoch["train/loss"])
    assert BAD_STEP not in [at for _, at, values in context.metrics if "train/step_loss" in values]


def test_too_many_in_a_row_stop(tiny, bad_image):
    config = tiny(non_finite={**SKIP, "max_skipped": 2}, steps_per_epoch=1, global_batch_size=1438)
    context = MemoryContext()
    with pytest.raises(DivergedError, match=r"2 steps in a row were left out; .* at step 3 "):
        train(config.model_copy(update={"epochs": 5}), context)
    assert context.checkpoints[-1][1]["train"]["skipped_steps"] == 2
    assert "train/loss" not in context.metrics[-1][2]


def test_skipping_resumes_exactly(tiny, bad_image, with_dropout, hex_of):
    config = tiny(non_finite=SKIP, epochs=1)
    whole = MemoryContext()
    result = train(config, whole)
    context = MemoryContext(stop_when=lambda: True)
    while (resumed := train(config, context)).stopped:
        pass
    assert (resumed, hex_of(context.metrics)) == (result, hex_of(whole.metrics))


def test_judged_later_the_weights_wait_for_the_verdict(tiny, bad_image):
    """As on a GPU, where nobody waits for the norm: the kernels leave out what follows."""
    run = build_run(tiny(), MemoryContext())
    prepare_network(run)
    guard = FiniteGuard(run, at_once=False)
    batches = train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)
    weights = []
    for images, labels in batches:
        take_step(run, guard, images, labels)
        weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
        if len(weights) == BAD_STEP - 1:
            guard.confirm()
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(weights)]
    assert changed == [True] * 5 + [False] * 5
    with pytest.raises(DivergedError, match=r"at step 7 .*first seen in the images on rank 0"):
        guard.confirm()


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 1.0}])
def test_judged_later_no_number_of_bad_steps_moves_a_weight(settings, tiny):
    """The kernels take exactly 1 for a bad step."""
    run = build_run(tiny(**settings), MemoryContext())
    prepare_network(run)
    run.model.head.classifier.weight.register_hook(lambda grad: grad * math.inf)
    guard = FiniteGuard(run, at_once=False)
    before = [weight.detach().clone() for weight in run.model.parameters()]
    batches = train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)
    for _, (images, labels) in zip(range(3), batches, strict=False):
        take_step(run, guard, images, labels)
    for old, new in zip(before, run.model.parameters(), strict=True):
        assert torch.equal(old, new)
    with pytest.raises(DivergedError, match="at step 1 "):
        guard.confirm()


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_ranks_decide_alike(action, tiny, on_two_ranks, bad_image):
    """Place 100 of the batch is on rank 1, and both say so."""

    def run(rank):
        context = MemoryContext(rank=rank, world_size=2)
        result = train(tiny(epochs=1, non_finite={"action": action}), context)
        return result.skipped_steps, result.weights_sha256

    one, two = on_two_ranks(run)
    assert one == two
    if action == "stop":
        assert one.startswith("DivergedError: loss or gradient is not finite at step 7 (epoch 1")
        assert "first seen in the images on rank 1" in one
    else:
        assert one[0] == 1
