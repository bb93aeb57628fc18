"""When a network is judged, saved, and given up on."""

import multiprocessing
import os
from dataclasses import replace

import pytest
import torch

from workloads.data.sources import build_data
from workloads.training.loop import train
from workloads.training.state import TrainState
from workloads.training.stopping import is_judged, note_validation
from workloads.worker.context import MemoryContext

FROZEN = {"name": "sgd", "lr": 1e-12}
"""So small a rate that nothing changes but the running statistics."""


def story(config):
    """Epochs that were judged, and those after which was saved."""
    context = MemoryContext()
    result = train(config, context)
    judged = [step for step, _, values in context.metrics if "val/top1" in values]
    saved = [state["train"]["epoch"] for _, state, _ in context.checkpoints]
    return judged, saved, result, context


def test_judged_and_saved_as_often_as_asked_and_at_the_end(tiny):
    config = tiny(
        epochs=8,
        steps_per_epoch=1,
        validation={"every_epochs": 2, "from_epoch": 3},
        checkpoint={"every_epochs": 5},
        optim=FROZEN,
    )
    judged, saved, result, context = story(config)
    assert judged == [4, 6, 8]
    best = [state["train"]["epoch"] for _, state, is_best in context.checkpoints if is_best]
    assert sorted({5, 8, *best}) == saved
    assert set(best) <= set(judged)
    assert result.best_epoch == best[-1]
    epochs = [values for *_, values in context.metrics if "progress/epoch" in values]
    assert len(epochs) == 8
    assert all("train/loss" in values for values in epochs)


@pytest.mark.parametrize(("every", "first", "want"), [(1, 1, [1, 2, 3, 4, 5]), (2, 3, [4, 5])])
def test_the_last_epoch_is_always_judged(every, first, want, tiny):
    config = tiny(epochs=5, validation={"every_epochs": every, "from_epoch": first})
    assert [epoch for epoch in range(1, 6) if is_judged(config, epoch)] == want


@pytest.mark.parametrize(
    ("early", "tops", "losses", "end"),
    [
        ({"patience_epochs": 2}, [50, 60, 55, 59, 70], [1] * 5, 4),
        ({"patience_epochs": 3}, [50, 60, 55, 59, 70], [1] * 5, None),
        ({"patience_epochs": 2, "min_delta": 5.0}, [50, 55, 54.9, 60, 70], [1] * 5, 3),
        ({"patience_epochs": 2, "metric": "loss"}, [50, 60, 70, 80, 90], [1, 0.9, 1, 0.9, 1], 4),
        ({"patience_epochs": 1, "metric": "loss"}, [50] * 5, [5, 4, 3, 2, 1], None),
    ],
)
def test_patience(early, tops, losses, end, tiny):
    config, state = tiny(epochs=9, early_stopping=early), TrainState()
    ended = None
    for epoch, (top1, loss) in enumerate(zip(tops, losses, strict=True), 1):
        state.val = {"top1": top1, "loss": loss}
        note_validation(config, state, epoch)
        if state.stopped_early and ended is None:
            ended = epoch
    assert ended == end


def test_the_last_epoch_is_no_early_end(tiny):
    config, state = tiny(epochs=2, early_stopping={"patience_epochs": 1}), TrainState()
    for epoch in (1, 2):
        state.val = {"top1": 50.0, "loss": 1.0}
        note_validation(config, state, epoch)
    assert not state.stopped_early


def test_giving_up_is_a_finish_and_stays_one(tiny, capsys):
    early = {"patience_epochs": 2, "min_delta": 50.0}
    config = tiny(epochs=9, steps_per_epoch=1, early_stopping=early, optim=FROZEN)
    judged, saved, result, context = story(config)
    assert judged == [1, 2, 3]
    assert saved[-1] == 3
    assert (result.stopped, result.stopped_early, result.epochs) == (False, True, 3)
    assert "finished: no improvement since epoch 1, best val" in capsys.readouterr().out
    assert train(config, context) == result  # asked again, it only reports
    assert context.metrics[-1][0] == 3


def test_patience_survives_a_resume(tiny):
    early = {"patience_epochs": 3, "min_delta": 50.0}
    config = tiny(epochs=9, steps_per_epoch=1, early_stopping=early, optim=FROZEN)
    context = MemoryContext(stop_when=lambda: True)
    for _ in range(20):
        if not (result := train(config, context)).stopped:
            break
    assert (result.stopped_early, result.epochs) == (True, 4)


class Watched:
    """A set of images that notes which process reads it."""

    def __init__(self, inner, log):
        self._inner, self._log = inner, log

    def __len__(self):
        return len(self._inner)

    def get_batch(self, indices, epoch):
        with self._log.open("a") as log:
            log.write(f"{os.getpid()}\n")
        return self._inner.get_batch(indices, epoch)


def test_loader_processes_stay_over_the_epochs_and_change_no_number(
    tiny, image_folder, tmp_path, monkeypatch
):
    """One process for training and one for validation, which judges twice each epoch."""

    def build(config, **options):
        data = build_data(config, **options)
        train_set, val_set = (Watched(data.train, logs[0]), Watched(data.val, logs[1]))
        return replace(data, train=train_set, val=val_set)

    def weights(loader_workers, **stop):
        data = {"name": "image_folder", "path": str(image_folder)}
        config = tiny(
            data={**data, "loader_workers": loader_workers},
            images={"size": 8},
            progressive=[{"from_epoch": 0, "size": 6}, {"from_epoch": 1, "size": 8}],
            epochs=3,
            steps_per_epoch=5,  # of 6: the processes are ahead when the epoch ends
            global_batch_size=4,
            ema={"decay": 0.9},
        )
        context = MemoryContext(**stop)
        if train(config, context).stopped:
            context.stop_when = lambda: False
            train(config, context)
        return context.checkpoints[-1][1]

    logs = (tmp_path / "train-pids", tmp_path / "val-pids")
    monkeypatch.setattr("workloads.training.run.build_data", build)
    kept = weights(1)
    readers = [set(log.read_text().split()) for log in logs]
    assert [len(found) for found in readers] == [1, 1]
    assert str(os.getpid()) not in readers[0] | readers[1]
    assert not multiprocessing.active_children()
    steps = iter(range(20))
    stopped = weights(2, stop_when=lambda: next(steps) == 7)  # in the second epoch
    for other in (weights(0), stopped):
        for part in ("model", "ema"):
            assert all(torch.equal(other[part][name], kept[part][name]) for name in kept[part])
