import pytest
import torch

from workloads.config.optim import AdamWConfig, SgdConfig
from workloads.training.optim import build_optimizer, set_learning_rate


@pytest.mark.parametrize(
    ("config", "want"),
    [
        (
            SgdConfig(lr=0.3, momentum=0.8, weight_decay=0.01, nesterov=True),
            {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
        ),
        (
            AdamWConfig(name="adamw", lr=0.2, beta1=0.8, beta2=0.9, weight_decay=0.05),
            {"lr": 0.2, "betas": (0.8, 0.9), "weight_decay": 0.05},
        ),
    ],
)
def test_every_option_arrives_for_every_parameter(config, want):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    optimizer = build_optimizer(config, net.parameters())
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in want} == want
    assert len(group["params"]) == 4
    set_learning_rate(optimizer, 0.5)
    assert group["lr"] == 0.5


def test_sgd_by_hand():
    """One weight w = 1, gradient 2, decay 0.1, momentum 0.5, rate 0.1; two steps."""
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer(SgdConfig(lr=0.1, momentum=0.5, weight_decay=0.1), [weight])
    values = []
    for _ in range(2):
        weight.grad = torch.tensor([2.0])
        optimizer.step()
        values.append(weight.item())
    first = 1.0 - 0.1 * 2.1
    second = first - 0.1 * (0.5 * 2.1 + 2.0 + 0.1 * first)
    assert values == pytest.approx([first, second])
