"""The loss against cross entropy with explicit targets, in double precision."""

import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.config.train import TrainConfig
from workloads.training.loss import Criterion, build_criterion
from workloads.training.mix import Mixed


def explicit(logits, targets):
    """Mean over images of - sum over classes of target * log softmax."""
    exponentials = torch.exp(logits - logits.amax(1, keepdim=True))
    probabilities = exponentials / exponentials.sum(1, keepdim=True)
    return -(targets * probabilities.log()).sum(1).mean()


def targets_of(labels, num_classes, eps, *, others):
    off = eps / (num_classes - 1) if others else eps / num_classes
    on = 1.0 - eps if others else 1.0 - eps + off
    targets = torch.full((len(labels), num_classes), off, dtype=torch.float64)
    targets[range(len(labels)), labels] = on
    return targets


def batch(num_classes):
    generator = torch.Generator().manual_seed(num_classes)
    logits = 3 * torch.randn(6, num_classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(num_classes, (6,), generator=generator)
    return logits, labels, torch.randint(num_classes, (6,), generator=generator)


@pytest.mark.parametrize("num_classes", [2, 3, 1000])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("over", ["all", "others"])
@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 1.0])
def test_equals_explicit_soft_targets(num_classes, eps, over, weight):
    logits, labels, partners = batch(num_classes)
    config = TrainConfig(label_smoothing=eps, label_smoothing_over=over)
    want = targets_of(labels, num_classes, eps, others=over == "others")
    torch.testing.assert_close(want.sum(1), torch.ones(6, dtype=torch.float64))
    mixed = None
    if weight is not None:
        mixed = Mixed(partner_labels=partners, weight=weight)
        theirs = targets_of(partners, num_classes, eps, others=over == "others")
        want = weight * want + (1 - weight) * theirs
    found = build_criterion(config)(logits, labels, mixed)
    torch.testing.assert_close(found, explicit(logits, want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mixed", [False, True])
def test_gradient_is_probabilities_minus_targets(mixed):
    logits, labels, partners = batch(5)
    logits.requires_grad_(True)
    targets = targets_of(labels, 5, 0.2, others=True)
    mix = None
    if mixed:
        targets = 0.7 * targets + 0.3 * targets_of(partners, 5, 0.2, others=True)
        mix = Mixed(partner_labels=partners, weight=0.7)
    Criterion(0.2, over_others=True)(logits, labels, mix).backward()
    want = (logits.detach().softmax(1) - targets) / len(labels)
    torch.testing.assert_close(logits.grad, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("over", ["all", "others"])
def test_half_precision_logits_are_judged_in_single(dtype, over):
    """4096 classes with logits of up to 30000: their exponentials and sums overflow in half."""
    logits = torch.zeros(4, 4096, dtype=dtype)
    logits[:, 0] = 30000.0
    labels = torch.tensor([0, 1, 2, 4095])
    loss = Criterion(0.1, over_others=over == "others")(logits, labels)
    assert loss.dtype == torch.float32
    targets = targets_of(labels, 4096, 0.1, others=over == "others")
    want = -(targets * logits.double().log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    assert Criterion()(logits, torch.zeros(4, dtype=torch.int64)).item() == 0.0


def test_two_classes_up_to_a_half():
    """At a half all classes are alike, and the loss no longer knows the labels."""
    logits, labels, _ = batch(2)
    half = Criterion(0.5, over_others=True)
    assert half(logits, labels) == half(logits, 1 - labels)
    with pytest.raises(ConfigError, match=r"label_smoothing \(0.51\): of 2 .* at most 0.5"):
        Criterion(0.51, over_others=True)(logits, labels)


def test_one_class_has_no_others():
    logits, labels = torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"of 1 classes at most 0 can.*over=all"):
        Criterion(0.1, over_others=True)(logits, labels)
    assert Criterion(0.0, over_others=True)(logits, labels) == 0.0


def test_means_of_equal_parts_are_the_whole():
    logits, labels, partners = batch(7)
    loss = Criterion(0.1)
    whole = loss(logits, labels, Mixed(partners, 0.4))
    parts = [
        loss(a, b, Mixed(c, 0.4))
        for a, b, c in zip(logits.split(2), labels.split(2), partners.split(2), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
