"""When a network is judged, saved, and given up on."""

import pytest

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
