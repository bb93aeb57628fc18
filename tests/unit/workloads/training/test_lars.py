"""LARS against its recursion, written out in NumPy in double precision."""

import numpy as np
import pytest
import torch
from torch import nn

from workloads.training.lars import Lars


def recursion(w, gradients, lrs, *, momentum, decay, trust, eps, adaptive=True):
    v = np.zeros_like(w)
    for g, lr in zip(gradients, lrs, strict=True):
        norm_w, norm_g = np.sqrt((w * w).sum()), np.sqrt((g * g).sum())
        r = 1.0
        if adaptive and norm_w > 0 and norm_g > 0:
            r = trust * norm_w / (norm_g + decay * norm_w + eps)
        v = momentum * v + r * (g + decay * w)
        w = w - lr * v
    return w


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("eps", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_follows_the_recursion(momentum, eps, decay):
    """Four tensors, one of them plain and one that begins at zero, at a rate that changes."""
    random = np.random.default_rng(0)
    shapes = [(3, 2, 2), (7,), (4, 5), (4,)]
    start = [random.normal(size=shape) for shape in shapes[:3]] + [np.zeros(4)]
    weights = [nn.Parameter(torch.from_numpy(w.copy())) for w in start]
    plain = {"params": [weights[1]], "adaptive": False}
    optimizer = Lars(
        [{"params": [weights[0], weights[2], weights[3]]}, plain],
        lr=1.0,
        momentum=momentum,
        weight_decay=decay,
        trust_coefficient=0.02,
        eps=eps,
    )
    lrs = [1.0, 0.5, 2.0, 0.1]
    gradients = [[random.normal(size=shape) for _ in lrs] for shape in shapes]
    for step, lr in enumerate(lrs):
        for weight, own in zip(weights, gradients, strict=True):
            weight.grad = torch.from_numpy(own[step])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    for number, weight in enumerate(weights):
        want = recursion(
            start[number],
            gradients[number],
            lrs,
            momentum=momentum,
            decay=decay,
            trust=0.02,
            eps=eps,
            adaptive=number != 1,
        )
        np.testing.assert_allclose(weight.detach().numpy(), want, rtol=1e-12, atol=1e-14)


def test_without_adaptation_it_is_sgd():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    optimizers = [
        Lars(ours.parameters(), adaptive=False, **options),
        torch.optim.SGD(theirs.parameters(), **options),
    ]
    for _ in range(5):
        x = torch.randn(8, 4, dtype=torch.float64)
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-14, atol=0)


def test_the_update_does_not_depend_on_the_gradients_scale():
    updates = []
    for scale in (1.0, 1000.0):
        weight = nn.Parameter(torch.arange(1.0, 5.0))
        optimizer = Lars([weight], lr=1.0, momentum=0.0)
        weight.grad = scale * torch.tensor([1.0, -1.0, 2.0, 0.5])
        optimizer.step()
        updates.append(weight.detach() - torch.arange(1.0, 5.0))
    torch.testing.assert_close(updates[0], updates[1])
    assert updates[0].norm().item() == pytest.approx(1e-3 * 30**0.5, rel=1e-3)


def test_weights_without_a_gradient_are_passed_over_and_have_no_state():
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lars([moved, still], lr=1.0, weight_decay=0.1)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(moved, torch.ones(2))
    assert list(optimizer.state) == [moved]


def test_state_goes_through_a_checkpoint_exactly():
    def trained(stop_after):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = Lars(net.parameters(), lr=5.0)
        for step in range(6):
            if step == stop_after:
                saved = (net.state_dict(), optimizer.state_dict())
                net = nn.Linear(3, 2)
                optimizer = Lars(net.parameters(), lr=5.0)
                net.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
            optimizer.zero_grad()
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            net(inputs).square().mean().backward()
            optimizer.step()
        return net.weight.detach()

    assert torch.equal(trained(None), trained(3))
