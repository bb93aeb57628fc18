"""What a training says that it costs."""

import pytest
import torch

from workloads.models.counting import count
from workloads.models.gcp_net import build_model
from workloads.training.cost import PeakMemory, count_network
from workloads.training.loop import train
from workloads.worker.context import MemoryContext


def test_weights_and_multiply_adds_are_those_of_the_network(tiny):
    context = MemoryContext()
    config = tiny(epochs=2)
    train(config, context)
    rows = [values for _, _, values in context.metrics if "time/train_s" in values]
    with torch.device("meta"):
        model = build_model(config.model, in_channels=1, num_classes=10)
    assert rows[0]["model/parameters"] == sum(p.numel() for p in model.parameters())
    assert rows[0]["model/macs"] == count(model, config.images.size, 1).total_macs > 0
    assert "model/macs" not in rows[1]  # constants are recorded once


def test_seconds_add_up_over_epochs_and_hold_the_validation(tiny):
    context = MemoryContext()
    train(tiny(epochs=3), context)
    rows = [values for _, _, values in context.metrics if "time/train_s" in values]
    seconds = [row["time/train_s"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[-1] > sum(row["time/epoch_s"] for row in rows)


def test_a_network_that_cannot_be_counted_is_no_failure(capsys):
    assert count_network(torch.nn.Linear(2, 2), image_size=8, in_channels=1) == {}


def test_the_peak_is_of_this_training_not_of_the_process():
    hog = torch.ones(64_000_000)  # 256 MB
    del hog
    before = PeakMemory(torch.device("cpu"))
    low = before.metrics()
    if not low:
        pytest.skip("the system does not tell the peak of the resident memory")
    hog = torch.ones(64_000_000)
    high = before.metrics()["perf/peak_memory_mb"]
    del hog
    again = PeakMemory(torch.device("cpu")).metrics()["perf/peak_memory_mb"]
    assert high - low["perf/peak_memory_mb"] > 200
    assert high - again > 200
