"""One optimizer step: parts that add up, clipping, mixing, sizes, what is held still."""

import math

import pytest
import torch
from torch import nn

from workloads.config.batches import count_parts
from workloads.config.errors import ConfigError
from workloads.data.loaders import train_batches
from workloads.training.accumulation import Part, forward, parts_of_batch
from workloads.training.guard import FiniteGuard
from workloads.training.loop import train
from workloads.training.mix import Mixed
from workloads.training.network import prepare_network
from workloads.training.run import Run, build_run
from workloads.training.step import take_step
from workloads.worker.context import MemoryContext


def start(config) -> Run:
    run = build_run(config, MemoryContext())
    prepare_network(run)
    return run


def first_batch(run: Run):
    batches = train_batches(
        run.data.train, seed=run.config.seed, epoch=0, batch_size_per_worker=run.batch_size
    )
    return next(iter(batches))


@pytest.mark.parametrize(
    ("share", "most", "in_pairs", "parts"),
    [
        (64, None, False, 1),
        (64, 64, False, 1),
        (64, 63, False, 2),
        (64, 20, False, 4),
        (60, 25, False, 3),
        (7, 3, False, 7),
        (60, 25, True, 3),
        (60, 5, True, 15),  # 12 parts of 5 would split pairs
        (2, 2, True, 1),
    ],
)
def test_parts_are_equal_and_as_few_as_fit(share, most, in_pairs, parts):
    assert count_parts(share, most, "train", in_pairs=in_pairs) == parts


def test_pairs_that_cannot_fit_are_refused(tiny):
    config = tiny(mix={}, compute={"max_images_per_worker": 1})
    with pytest.raises(ConfigError, match=r"max_images_per_worker: got 1; mix blends pairs"):
        build_run(config, MemoryContext())


@pytest.mark.parametrize("mix", [None, {"mixup": 0.8, "cutmix": 1.0}])
def test_parts_leave_the_gradient_of_the_whole_batch(mix, tiny, plain_gcp_net):
    """Checked against autograd on the whole batch, in float64."""
    run = start(tiny(mix=mix, compute={"max_images_per_worker": 20}, label_smoothing=0.1))
    assert run.num_parts == 8
    images, labels = first_batch(run)
    whole = torch.cat([part.images for part in parts_of_batch(run, images, labels, step=0)])
    mixed = [part.mixed for part in parts_of_batch(run, images, labels, step=0)]
    partners = None
    if mix is not None:
        partners = Mixed(torch.cat([m.partner_labels for m in mixed]), mixed[0].weight)
    exact = start(run.config).model.double()
    run.criterion(exact(whole.double()), labels, partners).backward()
    result = take_step(run, FiniteGuard(run), images, labels)
    for ours, theirs in zip(run.model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in exact.parameters()))
    assert result.grad_norm.item() == pytest.approx(norm, rel=1e-4)


def test_clipping_scales_all_gradients_together(tiny):
    free, held = start(tiny()), start(tiny(clip_norm=0.01))
    for run in (free, held):
        result = take_step(run, FiniteGuard(run), *first_batch(run))
        assert result.grad_norm.item() > 0.1  # before clipping
    grads = [torch.cat([p.grad.flatten() for p in run.model.parameters()]) for run in (free, held)]
    assert grads[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(grads[1] / grads[1].norm(), grads[0] / grads[0].norm())
    loose = start(tiny(clip_norm=1e6))
    take_step(loose, FiniteGuard(loose), *first_batch(loose))
    for ours, theirs in zip(loose.model.parameters(), free.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("weight", "right"), [(0.7, [0, 1]), (0.3, [2, 0]), (0.5, [0, 1])])
def test_a_mixed_image_is_right_if_its_larger_share_is(weight, right, tiny):
    run = start(tiny())
    labels, partners = torch.tensor([0, 1]), torch.tensor([2, 0])

    def network(_images):
        return nn.functional.one_hot(torch.tensor(right), 10).float()

    part = Part(torch.zeros(2, 1, 8, 8), labels, Mixed(partners, weight))
    assert forward(run, network, part).correct.item() == 2
    part = Part(torch.zeros(2, 1, 8, 8), labels, Mixed(partners, 1.0 - weight))
    assert forward(run, network, part).correct.item() == (2 if weight == 0.5 else 0)


def test_the_average_follows_at_its_steps_and_is_what_is_judged(tiny):
    config = tiny(epochs=1, steps_per_epoch=5, ema={"decay": 0.5, "every_steps": 2})
    run = start(config)
    want = [weight.detach().clone() for weight in run.model.parameters()]
    batches = train_batches(run.data.train, seed=0, epoch=0, batch_size_per_worker=128)
    for step, (images, labels) in zip(range(1, 6), batches, strict=False):
        take_step(run, FiniteGuard(run), images, labels)
        weights = list(run.model.parameters())
        if step in (2, 4):
            want = [0.5 * a + 0.5 * w.detach() for a, w in zip(want, weights, strict=True)]
    context = MemoryContext()
    result = train(config, context)
    saved = context.checkpoints[-1][1]
    names = [name for name, _ in run.model.named_parameters()]
    for name, value in zip(names, want, strict=True):
        torch.testing.assert_close(saved["ema"][name], value)
    metrics = context.metrics[-1][2]
    assert metrics["val/top1"] == result.val_top1 == saved["train"]["val"]["top1"]
    assert metrics["val/raw_loss"] != metrics["val/loss"]
    plain = MemoryContext()
    train(tiny(epochs=1, steps_per_epoch=5), plain)
    assert metrics["val/raw_loss"] == plain.metrics[-1][2]["val/loss"]
    assert result.weights_sha256 == plain.result.weights_sha256  # it changes nothing in training
    other = start(tiny())
    other.model.load_state_dict(saved["ema"])
    from workloads.training.validation import validate

    assert validate(other)["loss"] == metrics["val/loss"]


def test_sizes_follow_the_epochs(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "workloads.training.accumulation.forward",
        lambda run, network, part: (
            seen.append((run.state.epoch, part.images.shape[-1])),
            forward(run, network, part),
        )[1],
    )
    sizes = [{"from_epoch": 0, "size": 6}, {"from_epoch": 2, "size": 10}]
    train(tiny(epochs=3, steps_per_epoch=1, progressive=sizes), MemoryContext())
    assert seen == [(0, 6), (1, 6), (2, 10)]


@pytest.fixture
def states(tiny):
    """State after each epoch of a training with some settings."""

    def run(**changes):
        context = MemoryContext()
        train(tiny(epochs=3, steps_per_epoch=2, **changes), context)
        return [state["model"] for _, state, _ in context.checkpoints]

    return run


def test_what_is_held_still_stays(states):
    one, two, three = states(freeze={"parts": ["features"], "until_epoch": 2})
    for name in one:
        held = name.startswith("features.")
        assert torch.equal(one[name], two[name]) == held, name
        if one[name].numel() > 1:
            assert not torch.equal(two[name], three[name]), name


def test_memory_as_channels_last_changes_rounding_only(tiny, plain_gcp_net):
    def weights(**compute):
        context = MemoryContext()
        train(tiny(epochs=1, steps_per_epoch=4, compute=compute), context)
        return context.checkpoints[-1][1]["model"]

    plain, last = weights(), weights(channels_last=True)
    assert last["2.weight"].is_contiguous(memory_format=torch.channels_last)
    assert not last["2.weight"].is_contiguous()
    for name in plain:
        torch.testing.assert_close(last[name], plain[name], rtol=1e-4, atol=1e-6)


def test_weights_to_begin_with_are_taken_once(tiny, monkeypatch):
    """A resume has weights of its own."""
    calls = []

    def load(model, config, *, classes):
        calls.append((config.weights, classes[:2]))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(1.25)
        return "began with a file"

    monkeypatch.setattr("workloads.training.loop.load_initial_weights", load)
    ema = {"decay": 0.999999}
    config = tiny(init={"weights": "some.pt"}, epochs=1, steps_per_epoch=2, ema=ema)
    asked = iter([True])
    context = MemoryContext(stop_when=lambda: next(asked, False))
    assert train(config, context).stopped
    resumed = train(config, context)
    assert calls == [("some.pt", ["0", "1"])]
    saved = context.checkpoints[-1][1]
    name = "head.classifier.weight"
    fresh = start(config).model.state_dict()[name]
    torch.testing.assert_close(saved["ema"][name], 1.25 * fresh, rtol=1e-4, atol=1e-5)
    whole = MemoryContext()
    assert train(config, whole).weights_sha256 == resumed.weights_sha256
