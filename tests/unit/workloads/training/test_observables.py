"""What the pooling shows is logged with the loss; its vector order is part of a checkpoint."""

from typing import Any

import pytest
import torch
from torch import nn

from workloads.config.train import TrainConfig
from workloads.pooling.dropcov import DropCovPooling
from workloads.training import step_log
from workloads.training.loop import train
from workloads.training.observables import find_pooling, observe_pooling
from workloads.worker.context import MemoryContext
from workloads.worker.failures import CheckpointError

PLAIN = {"train/step_loss", "optim/grad_norm"}
ADAPTIVE = {"name": "dropcov"}
HALF = {"name": "dropcov", "adaptive": False, "rate": 0.5}


@pytest.fixture
def pooled(tiny):
    """The tiny training with another pooling."""

    def make(pooling: dict[str, Any], **changes: Any) -> TrainConfig:
        model = tiny().model.model_dump()
        model["head"]["pooling"] = pooling
        return tiny(model=model, **changes)

    return make


def step_metrics(context: MemoryContext) -> dict[int, dict[str, float]]:
    return {step: values for step, _, values in context.metrics if "train/step_loss" in values}


def test_rho_is_logged_with_the_loss_and_at_no_other_step(pooled, monkeypatch):
    looks = []
    monkeypatch.setattr(
        step_log, "observe_pooling", lambda model: (looks.append(1), observe_pooling(model))[1]
    )
    context = MemoryContext()
    train(pooled(HALF, epochs=1, log_every_steps=4), context)
    metrics = step_metrics(context)
    assert list(metrics) == [4, 8]
    assert all(values.keys() == {*PLAIN, "pooling/rho"} for values in metrics.values())
    assert [values["pooling/rho"] for values in metrics.values()] == [0.5, 0.5]
    assert len(looks) == 2
    epoch = context.metrics[-1][2]
    assert not any(name.startswith("pooling/") for name in epoch)


def test_the_logged_rate_is_that_of_the_step(pooled, monkeypatch):
    rates = iter([step / 16 for step in range(1, 12)])
    monkeypatch.setattr(DropCovPooling, "_rate", lambda *_: torch.tensor(next(rates)))
    context = MemoryContext()
    train(pooled(ADAPTIVE, epochs=1, log_every_steps=3), context)
    logged = {step: values["pooling/rho"] for step, values in step_metrics(context).items()}
    assert logged == {3: 3 / 16, 6: 6 / 16, 9: 9 / 16}


def test_a_pooling_that_shows_nothing_logs_the_loss_alone(tiny):
    context = MemoryContext()
    train(tiny(epochs=1), context)
    assert all(values.keys() == PLAIN for values in step_metrics(context).values())


def test_a_network_without_a_pooling(tiny, plain_net):
    context = MemoryContext()
    assert train(tiny(epochs=1), context).epochs == 1
    assert step_metrics(context)[11].keys() == PLAIN
    assert context.checkpoints[-1][1]["identity"]["vector order"] is None
    assert train(tiny(epochs=1), context).epochs == 1  # and it loads


def test_names_are_sorted_and_prefixed():
    class Two(DropCovPooling):
        def observables(self):
            return {"rho": torch.ones(()), "alpha": torch.zeros(())}

    inner = Two(in_channels=4)
    model = nn.Sequential(nn.ReLU(), nn.Sequential(inner))
    assert find_pooling(model) is inner
    assert list(observe_pooling(model)) == ["pooling/alpha", "pooling/rho"]
    assert find_pooling(nn.ReLU()) is None
    assert observe_pooling(nn.ReLU()) == {}


def test_ranks_log_their_mean(pooled, on_two_ranks):
    def action(rank: int) -> list[float]:
        DropCovPooling.observables = lambda self: {"rho": torch.tensor(0.25 + rank / 2)}
        context = MemoryContext(rank=rank, world_size=2)
        train(pooled(HALF, epochs=1, steps_per_epoch=3), context)
        return [values["pooling/rho"] for values in step_metrics(context).values()]

    assert on_two_ranks(action) == [[0.5] * 3] * 2


@pytest.mark.parametrize("pooling", [ADAPTIVE, HALF])
def test_stop_and_resume_with_dropped_channels_changes_no_bit(pooling, pooled, hex_of):
    config = pooled(pooling)
    whole = MemoryContext()
    result = train(config, whole)
    asked = iter([False] * 4 + [True])
    context = MemoryContext(stop_when=lambda: next(asked, False))
    assert train(config, context).stopped
    assert train(config, context) == result
    assert hex_of(context.metrics) == hex_of(whole.metrics)
    assert ("pooling/rho", 22) in hex_of(whole.metrics)


def stopped(config: TrainConfig, *, forget_order: bool) -> MemoryContext:
    context = MemoryContext(stop_when=lambda: True)
    assert train(config, context).stopped
    if forget_order:
        del context.checkpoints[-1][1]["identity"]["vector order"]
    return context


@pytest.mark.parametrize("forget_order", [False, True])
def test_another_vector_order_is_refused(forget_order, pooled):
    """The same shapes, and without the entry the order that there was before it."""
    context = stopped(pooled({"name": "isqrt"}), forget_order=forget_order)
    message = r"vector order: checkpoint 'upper_rows', this job 'upper_columns'"
    with pytest.raises(CheckpointError, match=message):
        train(pooled({"name": "isqrt", "vector": "upper_columns"}), context)


@pytest.mark.parametrize("pooling", ["isqrt", "gap"])
def test_a_checkpoint_from_before_the_entry_loads(pooling, pooled):
    config = pooled({"name": pooling})
    context = stopped(config, forget_order=True)
    context.stop_when = lambda: False
    assert train(config, context).epochs == 2


def test_a_checkpoint_of_another_order_resumes_in_it(pooled):
    config = pooled({"name": "isqrt", "vector": "upper_columns"})
    context = stopped(config, forget_order=False)
    context.stop_when = lambda: False
    assert train(config, context).epochs == 2
