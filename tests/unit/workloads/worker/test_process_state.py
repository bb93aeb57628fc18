"""A process taken back to where it was before a job."""

import multiprocessing
import os
import random
import time
import warnings

import numpy as np
import pytest
import torch

from workloads.worker import process_state
from workloads.worker.process_state import ProcessState


@pytest.fixture
def clean():
    """Put back what the tests change, whatever they test."""
    state = ProcessState.capture()
    yield state
    state.restore()


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_what_a_job_changes_is_put_back(clean, tmp_path):
    expected = draws()
    clean.restore()
    os.environ["LEFT_BEHIND"] = "1"
    path = os.environ.pop("PATH")
    folder = os.getcwd()
    os.chdir(tmp_path)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    draws()
    clean.restore()
    assert "LEFT_BEHIND" not in os.environ
    assert os.environ["PATH"] == path
    assert os.getcwd() == folder
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == clean.num_threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert ProcessState.capture().flags == clean.flags
    assert draws() == expected


def test_what_did_not_change_in_the_environment_is_never_missing(clean, monkeypatch):
    os.environ["LEFT_BEHIND"] = "1"
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # changes by itself
    unset, put = [], []
    delete, write = os.unsetenv, os.putenv
    monkeypatch.setattr(os, "unsetenv", lambda name: (unset.append(name), delete(name)))
    monkeypatch.setattr(os, "putenv", lambda *pair: (put.append(pair), write(*pair)))
    clean.restore()
    assert unset == [b"LEFT_BEHIND"]
    assert [name for name, _ in put] == [b"PYTEST_CURRENT_TEST"]


def test_a_switched_off_determinism_comes_back(clean):
    torch.use_deterministic_algorithms(True, warn_only=True)
    state = ProcessState.capture()
    torch.use_deterministic_algorithms(False)
    state.restore()
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_processes_left_behind_are_ended(clean):
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    clean.restore()
    assert not child.is_alive()


def warn_once() -> None:
    warnings.warn("of this job", stacklevel=1)


def test_each_job_hears_its_own_warnings(clean, recwarn):
    warnings.simplefilter("default")
    for heard in (1, 1):  # the second time is a repetition
        warn_once()
        assert len(recwarn) == heard
    clean.restore()
    warn_once()
    assert len(recwarn) == 2


def test_a_network_compiled_before_leaves_room_for_the_next(clean, monkeypatch):
    """Compiled code is counted per function: without a reset later jobs would run uncompiled."""
    import torch._dynamo

    compilations = []

    def backend(graph, inputs):
        compilations.append(1)
        return graph.forward

    def scale(x, factor):
        return x * factor

    for factor in range(2 * torch._dynamo.config.recompile_limit):
        torch.compile(scale, backend=backend, dynamic=False)(torch.ones(2 + factor), 1.0)
        process_state._forget_compiled()
    assert len(compilations) == 2 * torch._dynamo.config.recompile_limit
