import pytest
import torch
from torch import nn

from workloads.config.train import EmaConfig
from workloads.training.ema import WeightAverage


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def train_a_step(model):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(8, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def copy_of(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("warmup", [False, True])
def test_follows_the_recursion_in_double_precision(warmup):
    model = network()
    average = WeightAverage(model, EmaConfig(decay=0.9, warmup=warmup))
    want = {name: tensor.double() for name, tensor in copy_of(model.state_dict()).items()}
    for number in range(1, 200):
        train_a_step(model)
        average.update(model, number)
        decay = min(0.9, (1 + number) / (10 + number)) if warmup else 0.9
        for name, tensor in model.state_dict().items():
            want[name] = decay * want[name] + (1 - decay) * tensor.double()
        if number in (1, 10, 199):
            for name, tensor in average.state_dict().items():
                if tensor.is_floating_point():
                    torch.testing.assert_close(tensor.double(), want[name], rtol=1e-5, atol=1e-6)
    assert average.state_dict()["1.num_batches_tracked"] == 199


def test_warm_decay_by_hand():
    average = WeightAverage(network(), EmaConfig(decay=0.99, warmup=True))
    assert [average.decay(n) for n in (1, 8, 90, 10_000)] == [2 / 11, 0.5, 0.91, 0.99]


def test_a_small_share_is_not_lost():
    """0.99996 in single precision: after n equal steps a share of d^n is left."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, EmaConfig(decay=0.99996))
    nn.init.ones_(model.weight)
    for number in range(1, 5001):
        average.update(model, number)
    assert average.state_dict()["weight"].item() == pytest.approx(1 - 0.99996**5000, rel=1e-3)


def test_names_are_the_networks_and_nothing_is_shared():
    model = network()
    average = WeightAverage(model, EmaConfig())
    state = average.state_dict()
    assert list(state) == list(model.state_dict())
    assert not any(tensor.requires_grad for tensor in state.values())
    before = copy_of(state)
    train_a_step(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.items())
    network(seed=1).load_state_dict(state)


def test_applied_for_a_while_and_taken_back_exactly():
    model = network()
    average = WeightAverage(model, EmaConfig(decay=0.5))
    for number in range(1, 4):
        train_a_step(model)
        average.update(model, number)
    own, averaged = copy_of(model.state_dict()), copy_of(average.state_dict())
    assert not torch.equal(own["0.weight"], averaged["0.weight"])
    assert not torch.equal(own["1.running_mean"], averaged["1.running_mean"])
    places = [tensor.data_ptr() for tensor in model.state_dict().values()]
    with average.applied_to(model):
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, averaged[name]), name
        assert [tensor.data_ptr() for tensor in model.state_dict().values()] == places
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, own[name]), name
        assert torch.equal(average.state_dict()[name], averaged[name]), name


def test_taken_back_after_an_error_too():
    model = network()
    average = WeightAverage(model, EmaConfig(decay=0.5))
    train_a_step(model)
    own = copy_of(model.state_dict())
    with pytest.raises(RuntimeError, match="while judging"), average.applied_to(model):
        raise RuntimeError("while judging")
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_the_average_is_what_the_network_computes_with_while_applied():
    model = network().eval()
    average = WeightAverage(model, EmaConfig(decay=0.5))
    train_a_step(model)
    average.update(model, 1)
    other = network(seed=5).eval()
    other.load_state_dict(average.state_dict())
    x = torch.randn(4, 3)
    with average.applied_to(model.eval()), torch.no_grad():
        assert torch.equal(model(x), other(x))


def test_a_resumed_average_goes_on_to_the_last_bit():
    model = network()
    average = WeightAverage(model, EmaConfig())
    train_a_step(model)
    average.update(model, 1)
    resumed = WeightAverage(network(seed=3), EmaConfig())
    resumed.load_state_dict(copy_of(average.state_dict()))
    train_a_step(model)
    for each in (average, resumed):
        each.update(model, 2)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])


def test_the_average_of_another_network_is_refused():
    average = WeightAverage(network(), EmaConfig())
    state = copy_of(average.state_dict())
    with pytest.raises(ValueError, match=r"of another network: 2\.bias$"):
        average.load_state_dict({n: t for n, t in state.items() if n != "2.bias"})
    with pytest.raises(ValueError, match=r"2\.weight"):
        average.load_state_dict({**state, "2.weight": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="extra"):
        average.load_state_dict({**state, "extra": torch.zeros(1)})
