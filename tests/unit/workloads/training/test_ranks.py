"""Two ranks do what one rank does, together."""

import errno
import re
import socket
from functools import partial

import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.config.train import TrainConfig
from workloads.data import scan
from workloads.data.errors import DataError
from workloads.data.sources import build_data
from workloads.training.loop import train
from workloads.training.run import build_equal_data
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

    # 2**53 + 1 is the first whole number that float64 does not have: rounded to even.
    want = [[2.0**53, 1.0], True, [{"rank": 0}, {"rank": 1}], {"from": 0}, [1.0, 1.0]]
    assert on_two_ranks(action) == [want, want]


def stopped_and_resumed(config, on_ranks, root, world_size):
    """Weights of an undisturbed training, and of one stopped after its first steps."""

    def run(name, stop=False, attempt=1):
        def action(rank):
            context = FolderContext(
                root / name, rank=rank, world_size=world_size, local_rank=rank, attempt=attempt
            )
            if stop and rank == 0:
                context.request_stop()
            result = train(config, context)
            return result.stopped, result.weights_sha256

        return on_ranks(action, world_size)

    whole = run("whole")
    assert all(stopped for stopped, _ in run("halved", stop=True))
    return whole, run("halved", attempt=2)


@pytest.mark.parametrize(
    ("world_size", "optim"), [(3, {"name": "sgd"}), (2, {"name": "adamw", "lr": 0.01})]
)
def test_ranks_resume_exactly(world_size, optim, tiny, on_ranks, tmp_path):
    """With three ranks the layout of the gradients' buckets decides the order of sums."""
    config = tiny(optim=optim, epochs=1, global_batch_size=126, model={})
    whole, resumed = stopped_and_resumed(config, on_ranks, tmp_path, world_size)
    assert resumed == whole
    assert len(set(whole)) == 1


def test_other_data_on_a_rank_are_refused(tiny, on_ranks, monkeypatch):
    def other(config, *, peers, **options):
        fraction = 0.3 if peers.rank == 1 else 0.2
        return build_data(config.model_copy(update={"val_fraction": fraction}), **options)

    monkeypatch.setattr("workloads.training.run.build_data", other)
    for error in on_ranks(lambda r: train(tiny(), MemoryContext(rank=r, world_size=2))):
        assert error.startswith(f"DataError: rank 1 on {socket.gethostname()} has other data")
        assert "training images 1258, not 1438" in error


@pytest.mark.parametrize(
    ("failure", "want"),
    [
        (DataError("no folder /x", "mend it"), "DataError: rank 1 on .*: no folder /x .mend it."),
        (OSError(errno.EIO, "Input/output error"), "OSError: .Errno 5. rank 1 on "),
        (ZeroDivisionError("x"), "DataError: rank 1 on .*: ZeroDivisionError"),
    ],
)
def test_a_rank_without_data_tells_the_others(failure, want, tiny, on_ranks, monkeypatch):
    def fail(config, *, peers, **options):
        if peers.rank == 1:
            raise failure
        return build_data(config, **options)

    monkeypatch.setattr("workloads.training.run.build_data", fail)
    one, two = on_ranks(lambda r: train(tiny(), MemoryContext(rank=r, world_size=2)))
    assert re.match(want, one)
    assert two.startswith(f"{type(failure).__name__}: {failure}")


def test_ranks_share_the_check_of_images(image_folder, on_ranks, monkeypatch):
    (image_folder / "train" / "cat" / "bad.png").write_text("x")
    (image_folder / "train" / "dog" / "bad.png").write_text("x")
    config = TrainConfig.model_validate(
        {
            "data": {
                "name": "image_folder",
                "path": str(image_folder),
                "on_bad_image": "skip",
            },
            "images": {"size": 8},
        }
    )
    seen = []
    real = scan.load_image
    monkeypatch.setattr(
        scan,
        "load_image",
        lambda files, name, most: (seen.append(name), real(files, name, most))[1],
    )

    def action(rank):
        data = build_equal_data(config, MemoryContext(rank=rank, world_size=2))
        return len(seen), sorted(data.skipped), len(data.train)

    bad = ["train/cat/bad.png", "train/dog/bad.png"]
    assert on_ranks(action) == [(15, bad, 24), (15, bad, 24)]


CONTRACT = {
    "epochs": 2,
    "steps_per_epoch": 4,
    "mix": {"mixup": 0.8, "cutmix": 1.0},
    "clip_norm": 0.5,
    "ema": {"decay": 0.9},
    "optim": {"name": "sgd", "lr": 0.05, "lr_factors": {"classifier": 2.0}},
}


def test_the_number_of_workers_changes_rounding_only(tiny, plain_gcp_net, on_ranks):
    """One worker in four parts, two in two parts, four whole: the same training."""

    def run(world_size, most):
        config = tiny(**CONTRACT, compute={"max_images_per_worker": most})

        def action(rank):
            context = MemoryContext(rank=rank, world_size=world_size)
            train(config, context)
            state = context.checkpoints[-1][1]
            rates = [v["optim/lr"] for *_, v in context.metrics if "optim/lr" in v]
            losses = [v["train/step_loss"] for *_, v in context.metrics if "train/step_loss" in v]
            return state["model"], state["ema"], rates, losses, state["train"]["val"]["num_images"]

        return on_ranks(action, world_size)

    ((weights, average, rates, losses, images),) = run(1, 32)
    for world_size, most in ((2, 32), (4, None)):
        for other in run(world_size, most):
            assert other[2] == rates
            assert other[4] == images
            assert other[3] == pytest.approx(losses, rel=1e-5)
            for ours, theirs in ((weights, other[0]), (average, other[1])):
                for name, value in ours.items():
                    torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-5)


def test_pairs_do_not_cross_workers(tiny):
    with pytest.raises(ConfigError, match=r"mix blends pairs of images, and 2 workers have 63"):
        train(tiny(mix={}, global_batch_size=126), MemoryContext(world_size=2))


def test_ranks_resume_exactly_with_everything_on(tiny, on_ranks, tmp_path):
    """Held parts let go in mid-training, so that gradients are averaged by a new wrapper."""
    config = tiny(
        epochs=2,
        steps_per_epoch=4,
        global_batch_size=192,
        freeze={"parts": ["features"], "until_epoch": 1},
        mix={},
        ema={"decay": 0.9},
        clip_norm=0.5,
        compute={"max_images_per_worker": 48, "precision": "bf16", "channels_last": True},
        optim={"name": "sgd", "decay_norms_and_biases": False},
        checkpoint={"every_steps": 1},
    )
    whole = on_ranks(partial(_killed_after, config, tmp_path / "whole", None, 1), 2)
    assert whole[0] == whole[1]
    for attempt, step in enumerate((2, 6, None), 1):  # in either epoch of 4 steps
        action = partial(_killed_after, config, tmp_path / "killed", step, attempt)
        ended = on_ranks(action, 2)
        assert step is None or ended == [f"RuntimeError: killed after step {step}"] * 2
    assert ended == whole


def _killed_after(config, root, step, attempt, rank):
    """Train as one of two ranks, up to the checkpoint of a step; return what marks the end."""
    context = FolderContext(root, rank=rank, world_size=2, local_rank=rank, attempt=attempt)
    save = context.save_checkpoint

    def save_and_die(*arguments, **options):
        save(*arguments, **options)
        if options["step"] == step:
            raise RuntimeError(f"killed after step {step}")

    context.save_checkpoint = save_and_die
    result = train(config, context)
    return result.weights_sha256, result.val_loss, result.global_step
