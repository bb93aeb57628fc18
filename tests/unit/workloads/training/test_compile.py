"""Compiling the network: names, weights and numbers stay, and a failure says what to do."""

from functools import partial

import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.training.loop import train
from workloads.worker.context import MemoryContext

COMPILED = {"compute": {"compile": True}}
compile_for_real = torch.compile


@pytest.fixture
def through_autograd(monkeypatch):
    """Everything but the compiler of kernels, which takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(compile_for_real, backend="aot_eager"))
    yield
    torch._dynamo.reset()


def test_a_compiled_training_is_the_same(tiny, through_autograd):
    ends = []
    for changes in ({}, COMPILED):
        context = MemoryContext()
        train(tiny(epochs=1, steps_per_epoch=3, **changes), context)
        ends.append(context.checkpoints[-1][1])
    plain, compiled = (end["model"] for end in ends)
    assert list(plain) == list(compiled)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-6)


def test_it_resumes_exactly(tiny, through_autograd):
    config = tiny(epochs=1, steps_per_epoch=3, **COMPILED)
    whole = train(config, MemoryContext())
    context = MemoryContext(stop_when=lambda: True)
    while (resumed := train(config, context)).stopped:
        pass
    assert resumed == whole


def test_a_failure_says_how_to_do_without(tiny, monkeypatch):
    def broken(_graph, _inputs):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", partial(compile_for_real, backend=broken))
    with pytest.raises(ConfigError, match=r"(?s)compute\.compile: .*no compiler here.*=false"):
        train(tiny(epochs=1, **COMPILED), MemoryContext())
    torch._dynamo.reset()
