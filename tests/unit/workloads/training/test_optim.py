import pytest
import torch
from torch import nn

from workloads.config.model import ModelConfig
from workloads.config.optim import AdamWConfig, LarsConfig, LrFactorsConfig, SgdConfig
from workloads.models.gcp_net import build_model
from workloads.training.lars import Lars
from workloads.training.optim import build_optimizer, set_learning_rate, undecayed_names
from workloads.training.parts import part_of

SMALL = {
    "backbone": {"name": "small_resnet", "width": 4, "blocks": [1]},
    "head": {"reduced_channels": 4, "pooling": {"name": "dropcov"}},
}
TOKENS = {
    "backbone": {"name": "deit_tiny", "image_size": 32},
    "head": {"reduced_channels": 4, "activation": "none"},
}


def network(document=SMALL):
    return build_model(ModelConfig.model_validate(document), in_channels=3, num_classes=5)


def group_of(optimizer, model):
    """Parameter name -> its group."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("config", "kind", "want"),
    [
        (
            SgdConfig(lr=0.3, momentum=0.8, weight_decay=0.01, nesterov=True),
            torch.optim.SGD,
            {"lr": 0.3, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True, "fused": True},
        ),
        (
            AdamWConfig(name="adamw", lr=0.2, beta1=0.8, beta2=0.9, weight_decay=0.05, eps=1e-6),
            torch.optim.AdamW,
            {"lr": 0.2, "betas": (0.8, 0.9), "weight_decay": 0.05, "eps": 1e-6, "fused": True},
        ),
        (
            LarsConfig(
                name="lars",
                lr=7.0,
                momentum=0.85,
                weight_decay=5e-5,
                trust_coefficient=0.002,
                eps=1e-9,
                decay_norms_and_biases=True,
            ),
            Lars,
            {
                "lr": 7.0,
                "momentum": 0.85,
                "weight_decay": 5e-5,
                "trust_coefficient": 0.002,
                "eps": 1e-9,
                "adaptive": True,
            },
        ),
    ],
)
def test_every_option_arrives_for_every_parameter_in_one_group(config, kind, want):
    net = network()
    optimizer = build_optimizer(config, net)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in want} == want
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    set_learning_rate(optimizer, 0.5)
    assert group["lr"] == 0.5


def test_sgd_by_hand():
    """One weight w = 1, gradient 2, decay 0.1, momentum 0.5, rate 0.1; two steps."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    optimizer = build_optimizer(SgdConfig(lr=0.1, momentum=0.5, weight_decay=0.1), net)
    values = []
    for _ in range(2):
        net.weight.grad = torch.tensor([[2.0]])
        optimizer.step()
        values.append(net.weight.item())
    first = 1.0 - 0.1 * 2.1
    second = first - 0.1 * (0.5 * 2.1 + 2.0 + 0.1 * first)
    assert values == pytest.approx([first, second])


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("features", "features"),
        ("features.stages.0.0.conv1.weight", "features"),
        ("features.head.weight", "features"),
        ("head.reduction.0.weight", "reduction"),
        ("head.reduction.1", "reduction"),
        ("head.pooling.importance.conv.weight", "pooling"),
        ("head.hidden.0.weight", "classifier"),
        ("head.classifier.bias", "classifier"),
        ("head.token_classifier.bias", "classifier"),
        ("head", "classifier"),
        ("0.weight", "classifier"),
    ],
)
def test_parts(name, part):
    assert part_of(name) == part


def test_norms_and_biases_are_spared_by_shape_and_by_what_layers_say():
    net = network(TOKENS)
    spared = undecayed_names(net)
    weights = dict(net.named_parameters())
    two_dimensional = {name for name in spared if weights[name].dim() > 1}
    assert two_dimensional == {"features.cls_token", "features.pos_embed"}
    assert {n for n in weights if n.endswith(".bias")} <= spared
    assert "features.blocks.0.norm1.weight" in spared
    assert "head.reduction.1.weight" in spared
    assert "head.classifier.weight" not in spared


def test_swins_position_biases_are_spared():
    net = network({"backbone": {"name": "swin_tiny"}, "head": {"activation": "none"}})
    spared = {name for name in undecayed_names(net) if "bias_table" in name}
    tables = {n for n, _ in net.named_parameters() if "relative_position_bias_table" in n}
    assert spared == tables
    assert len(tables) == 12


def test_groups_by_factor_and_decay():
    net = network()
    config = SgdConfig(
        lr=0.1,
        weight_decay=0.01,
        decay_norms_and_biases=False,
        no_decay_parts=("pooling",),
        lr_factors=LrFactorsConfig(features=0.1, classifier=20.0),
    )
    optimizer = build_optimizer(config, net)
    groups = group_of(optimizer, net)
    assert len(groups) == len(list(net.parameters()))
    factors = {"features": 0.1, "reduction": 1.0, "pooling": 1.0, "classifier": 20.0}
    for rate in (0.1, 0.037):
        for name, weight in net.named_parameters():
            decays = weight.dim() > 1 and part_of(name) != "pooling"
            assert groups[name]["weight_decay"] == (0.01 if decays else 0.0), name
            assert groups[name]["lr"] == pytest.approx(rate * factors[part_of(name)]), name
        set_learning_rate(optimizer, 0.037)
    assert len(optimizer.param_groups) == 6


def test_without_decay_there_is_nothing_to_spare_except_for_lars():
    net = network()
    no_decay = {"weight_decay": 0.0, "decay_norms_and_biases": False}
    (group,) = build_optimizer(AdamWConfig(name="adamw", **no_decay), net).param_groups
    assert group["weight_decay"] == 0.0
    lars = build_optimizer(LarsConfig(name="lars", **no_decay), net)
    groups = group_of(lars, net)
    assert groups["head.classifier.weight"]["adaptive"]
    assert not groups["head.classifier.bias"]["adaptive"]


def test_a_factor_changes_its_part_alone():
    """Ten times the rate is ten times the first step of plain SGD, and leaves the rest alone."""
    steps = {}
    for factor in (1.0, 10.0):
        torch.manual_seed(0)
        net = network()
        factors = LrFactorsConfig(classifier=factor)
        optimizer = build_optimizer(SgdConfig(lr=0.1, lr_factors=factors, weight_decay=0.0), net)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        images = torch.randn(8, 3, 8, 8)
        net.eval()(images).logsumexp(1).sum().backward()
        optimizer.step()
        steps[factor] = {
            name: p.detach() - before[name]
            for name, p in net.named_parameters()
            if p.grad is not None
        }
    for name, step in steps[1.0].items():
        wide = 10.0 if part_of(name) == "classifier" else 1.0
        torch.testing.assert_close(steps[10.0][name], wide * step, rtol=1e-4, atol=1e-7)


def test_state_of_a_single_group_saved_before_factors_existed_can_be_loaded():
    net = network()
    optimizer = build_optimizer(SgdConfig(), net)
    old = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    for weight in net.parameters():
        weight.grad = torch.ones_like(weight)
    old.step()
    optimizer.load_state_dict(old.state_dict())
    for weight in net.parameters():
        assert torch.equal(
            optimizer.state[weight]["momentum_buffer"], old.state[weight]["momentum_buffer"]
        )


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_weights_that_join_late_move_as_if_they_were_alone(name):
    """The kernels of torch want a momentum for all weights of a group, or for none."""
    configs = {
        "sgd": SgdConfig(lr=0.1),
        "lars": LarsConfig(name="lars", decay_norms_and_biases=True),
        "adamw": AdamWConfig(name="adamw"),
    }
    both = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    alone = nn.Linear(3, 2)
    alone.load_state_dict(both[1].state_dict())
    optimizers = [build_optimizer(configs[name], net) for net in (both, alone)]
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        for weight in both[0].parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        for late, peer in zip(both[1].parameters(), alone.parameters(), strict=True):
            gradient = torch.randn(late.shape, generator=generator)
            late.grad, peer.grad = (gradient.clone(), gradient) if step >= 2 else (None, None)
        for optimizer in optimizers:
            optimizer.step()
    for late, peer in zip(both[1].parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(late, peer, rtol=1e-6, atol=1e-7)


def test_a_first_step_left_out_by_the_gradient_scaler_leaves_no_momentum():
    net = nn.Linear(300, 300)
    before = net.weight.detach().clone()
    waste = [
        torch.full((300, 300), 7.0) for _ in range(50)
    ]  # memory for the momenta to be found in
    del waste
    optimizer = build_optimizer(SgdConfig(lr=0.1, weight_decay=0.0), net)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (float("inf"), 0.0):
        optimizer.zero_grad()
        scaler.scale(factor * net(torch.ones(1, 300)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(net.weight, before)
    assert all(not state["momentum_buffer"].any() for state in optimizer.state.values())


def test_momenta_of_zero_change_no_bit_of_sgd():
    torch.manual_seed(0)
    nets = [nn.Linear(20, 30), nn.Linear(20, 30)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [
        build_optimizer(SgdConfig(lr=0.1, momentum=0.85, nesterov=True), nets[0]),
        torch.optim.SGD(
            nets[1].parameters(),
            lr=0.1,
            momentum=0.85,
            nesterov=True,
            weight_decay=1e-4,
            fused=True,
        ),
    ]
    for _ in range(4):
        x = torch.randn(8, 20)
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert torch.equal(nets[0].bias, nets[1].bias)
