"""Two ranks do what one rank does, together."""

import math

import pytest
import torch

from workloads.data.loaders import train_batches
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import FolderContext
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed


def test_two_ranks_equal_one_at_the_same_global_batch(tiny, plain_net, on_two_ranks):
    config = tiny(epochs=5)  # 55 steps

    def run(rank, world_size=2):
        context = MemoryContext(rank=rank, world_size=world_size)
        result = train(config, context)
        return [values for _, _, values in context.metrics], result.weights_sha256

    alone, _ = run(0, world_size=1)
    (one, one_weights), (two, two_weights) = on_two_ranks(run)
    assert one_weights == two_weights
    assert len(one) == len(two) == len(alone) == 60
    for single, double in zip(alone, one, strict=True):
        for key in ("train/step_loss", "train/loss", "val/loss"):
            if key in single:
                assert double[key] == pytest.approx(single[key], rel=1e-5)


def test_a_stop_is_taken_at_one_step_and_resumes_exactly(
    tiny, with_dropout, on_two_ranks, tmp_path
):
    config = tiny()

    def run(root, stop, attempt=1):
        def action(rank):
            context = FolderContext(root, rank=rank, world_size=2, local_rank=rank, attempt=attempt)
            if stop and rank == 0:
                context.request_stop()
            result = train(config, context)
            return result.stopped, result.global_step, result.weights_sha256

        return action

    one, two = on_two_ranks(run(tmp_path / "whole", stop=False))
    assert one == two
    stopped = on_two_ranks(run(tmp_path / "halved", stop=True))
    assert stopped[0] == stopped[1]
    assert stopped[0][0]
    assert stopped[0][1] % 11 != 0
    assert on_two_ranks(run(tmp_path / "halved", stop=False, attempt=2)) == [one, two]

    def losses(name):
        rows, _ = read_committed(JobPaths(tmp_path / name).spool, 0)
        return [
            (row.step, key, row.metrics[key].hex())
            for row in rows
            for key in ("train/step_loss", "train/loss", "val/loss")
            if key in row.metrics
        ]

    assert losses("halved") == losses("whole")


def test_a_bad_loss_on_one_rank_stops_both_at_the_same_step(
    tiny, plain_net, on_two_ranks, monkeypatch
):
    def spoilt(*args, rank, **kwargs):
        for step, (images, labels) in enumerate(train_batches(*args, rank=rank, **kwargs)):
            yield (images * math.nan if (step, rank) == (6, 1) else images), labels

    monkeypatch.setattr("workloads.training.loop.train_batches", spoilt)
    one, two = on_two_ranks(lambda r: train(tiny(), MemoryContext(rank=r, world_size=2)))
    assert one.startswith("DivergedError: loss or gradient is not finite at step 7")
    assert two.startswith("DivergedError: loss or gradient is not finite at step 7")


def test_another_number_of_ranks_goes_on_with_the_same_images(
    tiny, plain_net, on_two_ranks, tmp_path
):
    """From two ranks in mid-epoch to one: the losses stay those of an undisturbed training."""
    config = tiny()

    def stop_early(rank):
        context = FolderContext(tmp_path / "job", rank=rank, world_size=2, local_rank=rank)
        if rank == 0:
            context.request_stop()
        return train(config, context).stopped

    assert on_two_ranks(stop_early) == [True, True]
    train(config, FolderContext(tmp_path / "job", attempt=2))
    whole = MemoryContext()
    train(config, whole)
    rows, _ = read_committed(JobPaths(tmp_path / "job").spool, 0)
    assert [row.step for row in rows] == [step for step, _, _ in whole.metrics]
    for row, (_, _, values) in zip(rows, whole.metrics, strict=True):
        for key in ("train/step_loss", "train/loss", "val/loss", "train/top1"):
            if key in values:
                assert row.metrics[key] == pytest.approx(values[key], rel=1e-5)


def test_reductions(on_two_ranks):
    from workloads.worker import distributed

    def action(rank):
        buffers = torch.nn.BatchNorm1d(2)
        buffers.running_mean += rank + 1
        distributed.broadcast_buffers(buffers)
        distributed.barrier()
        return [
            distributed.all_reduce_sum([2.0**52 + rank, rank]),
            distributed.broadcast_flag(rank == 0),
            distributed.gather_objects({"rank": rank}),
            distributed.broadcast_object({"from": rank}),
            buffers.running_mean.tolist(),
        ]

    want = [[2.0**53 + 1, 1.0], True, [{"rank": 0}, {"rank": 1}], {"from": 0}, [1.0, 1.0]]
    one, two = on_two_ranks(action)
    assert one[1:] == two[1:] == want[1:]
    assert one[0][1] == 1.0
