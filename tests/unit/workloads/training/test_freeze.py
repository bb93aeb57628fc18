import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.config.model import ModelConfig
from workloads.config.optim import SgdConfig
from workloads.config.train import FreezeConfig
from workloads.models.gcp_net import build_model
from workloads.training.freeze import Freezer
from workloads.training.optim import build_optimizer
from workloads.training.parts import part_of


def network():
    torch.manual_seed(0)
    document = {
        "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
        "head": {"reduced_channels": 4},
    }
    return build_model(ModelConfig.model_validate(document), in_channels=1, num_classes=3)


def copy_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved_parts(before, model):
    after = model.state_dict()
    return {part_of(name) for name in before if not torch.equal(before[name], after[name])}


def train_steps(model, optimizer, steps=3):
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()


def test_features_are_still_to_the_last_bit_until_they_are_let_go():
    model = network()
    freezer = Freezer(model, FreezeConfig(until_epoch=2))
    optimizer = build_optimizer(SgdConfig(lr=0.01), model)
    everything = {"features", "reduction", "classifier"}
    changes, moved = [], []
    for epoch in range(4):
        model.train()
        changes.append(freezer.apply(epoch))
        before = copy_of(model)
        train_steps(model, optimizer)
        moved.append(moved_parts(before, model))
    assert changes == [True, False, True, False]
    assert moved == [everything - {"features"}] * 2 + [everything] * 2


def test_running_statistics_are_used_only_where_it_is_frozen():
    model = network()
    freezer = Freezer(model, FreezeConfig(parts=("features", "reduction")))
    model.train()
    freezer.apply(0)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert len(norms) > 2
    assert not any(norm.training for norm in norms.values())
    assert model.training
    model.train()
    assert all(norm.training for norm in norms.values())
    freezer.apply(1)
    assert not any(norm.training for norm in norms.values())


def test_a_resume_after_the_release_changes_nothing():
    model = network()
    assert Freezer(model, FreezeConfig(until_epoch=2)).apply(2) is False
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_gradient_left_over_does_not_move_a_held_weight():
    model = network()
    optimizer = build_optimizer(SgdConfig(lr=0.01), model)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    before = copy_of(model)
    Freezer(model, FreezeConfig()).apply(0)
    optimizer.step()
    assert "features" not in moved_parts(before, model)


def test_what_never_had_a_gradient_gets_none():
    model = network()
    never = next(model.features.parameters()).requires_grad_(False)
    freezer = Freezer(model, FreezeConfig(until_epoch=1))
    freezer.apply(0)
    freezer.apply(1)
    assert not never.requires_grad
    assert sum(not weight.requires_grad for weight in model.parameters()) == 1


def test_without_a_config_nothing_happens():
    model = network()
    freezer = Freezer(model, None)
    assert freezer.apply(0) is False
    assert all(weight.requires_grad for weight in model.parameters())
    assert freezer.describe() == ""


def test_something_must_be_left_to_train():
    parts = ("features", "reduction", "pooling", "classifier")
    with pytest.raises(ConfigError, match=r"freeze\.parts: .*no weight is left to train"):
        Freezer(network(), FreezeConfig(parts=parts))
    # iSQRT has no weights, so holding all the others leaves nothing either.
    with pytest.raises(ConfigError, match=r"no weight is left to train"):
        Freezer(network(), FreezeConfig(parts=("features", "reduction", "classifier")))


def test_says_what_it_does():
    model = network()
    count = sum(weight.numel() for weight in model.features.parameters())
    held = Freezer(model, FreezeConfig()).describe()
    assert held == f"features held still for the whole training: {count:,} weights"
    assert "until epoch 3 is done" in Freezer(model, FreezeConfig(until_epoch=3)).describe()
