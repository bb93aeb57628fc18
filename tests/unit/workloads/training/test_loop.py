import json

import pytest
import torch

from workloads.config.errors import ConfigError
from workloads.config.train import TrainConfig
from workloads.models.weights.digest import digest_weights
from workloads.training import pacing
from workloads.training.__main__ import main
from workloads.training.loop import _describe, train
from workloads.training.run import build_run
from workloads.worker.context import MemoryContext
from workloads.worker.failures import DivergedError
from workloads.worker.paths import JobPaths
from workloads.worker.spool import read_committed


def test_the_story_of_a_run(tiny, capsys):
    context = MemoryContext()
    result = train(tiny(checkpoint={"every_steps": 4}, log_every_steps=5), context)
    assert result == context.result
    assert (result.epochs, result.global_step, result.stopped) == (2, 22, False)
    assert result.num_val_images == 359
    front = (
        "train/loss train/top1 val/loss val/top1 val/top5 optim/lr perf/images_per_s "
        "time/epoch_s time/train_s perf/peak_memory_mb"
    )
    back = "progress/epoch progress/samples"
    first, later = f"{front} model/parameters model/macs {back}", f"{front} {back}"
    logged = [(step, at, " ".join(values)) for step, at, values in context.metrics]
    per_step = [(s, s, "train/step_loss optim/grad_norm") for s in (5, 10, 15, 20)]
    assert logged == [*per_step[:2], (1, 11, first), *per_step[2:], (2, 22, later)]
    assert [step for step, _, _ in context.checkpoints] == [4, 8, 11, 12, 16, 20, 22]
    best = [step for step, _, is_best in context.checkpoints if is_best]
    assert best[-1] == 11 * result.best_epoch
    assert context.metrics[-1][2]["progress/samples"] == 22 * 128
    assert context.progress[0].global_step == 1
    assert context.progress[-1].phase == "finished"
    out = capsys.readouterr().out
    assert "epoch 2/2  loss " in out
    assert "images/s" in out


def test_it_learns(tiny):
    config = tiny(epochs=5, global_batch_size=32, model={})
    assert train(config, MemoryContext()).best_top1 > 90.0


def test_the_seed_decides_the_weights(tiny):
    digests = [
        train(tiny(epochs=1, seed=seed), MemoryContext()).weights_sha256 for seed in (1, 1, 2)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_batch_must_divide(tiny):
    message = r"train:\n.*128 images do not divide evenly among 3 workers.*try 126 or 129"
    with pytest.raises(ConfigError, match=message):
        train(tiny(), MemoryContext(world_size=3))


def test_a_learning_rate_far_too_high_diverges_by_name(tiny):
    config = tiny(
        optim={"name": "sgd", "lr": 100.0, "weight_decay": 0.5},
        schedule={"name": "constant"},
        epochs=30,
    )
    with pytest.raises(DivergedError, match=r"Lower optim\.lr"):
        train(config, MemoryContext())


def test_digest_sees_names_shapes_and_bytes():
    one, two = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    two.load_state_dict(one.state_dict())
    assert digest_weights(one) == digest_weights(two)
    with torch.no_grad():
        two.bias[0] += 1e-7
    assert digest_weights(one) != digest_weights(two)


def test_the_command_trains_and_resumes_from_a_folder(tiny, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(tiny().model_dump_json())
    paths = JobPaths(tmp_path / "job")
    options = ["--config", str(config), "--root", str(paths.root)]
    paths.root.mkdir()
    paths.stop.touch()
    assert main(options) == 0
    assert json.loads(paths.result.read_bytes())["stopped"]
    paths.stop.unlink()
    assert main([*options, "--attempt", "2"]) == 0
    result = json.loads(paths.result.read_bytes())
    assert result["weights_sha256"] == train(tiny(), MemoryContext()).weights_sha256
    rows, _ = read_committed(paths.spool, 0)
    steps = [row.step for row in rows if "train/step_loss" in row.metrics]
    assert steps == list(range(1, 23))
    assert main(options) == 1  # attempt 1 is fenced
    assert json.loads(paths.failure(1).read_bytes())["class"] == "fenced"
    config.write_text("{}]")
    assert main(options) == 2


def test_shorter_epochs_use_the_first_batches_of_each():
    config = TrainConfig(epochs=2, steps_per_epoch=3, log_every_steps=1)
    context = MemoryContext()
    result = train(config, context)
    assert (result.global_step, result.epochs) == (6, 2)


def test_more_steps_than_images_are_refused():
    with pytest.raises(ConfigError, match="steps_per_epoch"):
        train(TrainConfig(steps_per_epoch=1000), MemoryContext())


def test_progress_is_reported_twice_a_second_and_at_the_ends(tiny, monkeypatch):
    """Steps of 0.1 s: the first, every fifth after it, then what is no training."""
    now = [0.0]
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: now[0])

    class Clock(MemoryContext):
        def should_stop(self):
            now[0] += 0.125
            return False

    context = Clock()
    train(tiny(epochs=1), context)
    shown = [(p.phase, p.global_step) for p in context.progress]
    steps = [("train", 1), ("train", 5), ("train", 9)]
    assert shown == [*steps, ("validate", 11), ("finished", 11)]


def test_milestones_that_never_come_are_said(tiny, capsys):
    def said(milestones):
        schedule = {"name": "step", "milestones": milestones}
        train(tiny(epochs=2, steps_per_epoch=1, schedule=schedule), MemoryContext())
        return "warning: no milestone of the schedule" in capsys.readouterr().out

    assert [said([1, 5]), said([2])] == [False, True]


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"schedule": {"name": "gcp_poly", "horizon": 2}}, "is 0 after epoch 3: the last 2 of 5"),
        ({"schedule": {"name": "gcp_poly", "horizon": 4}}, None),
        ({"schedule": {"name": "cosine", "cooldown_epochs": 1}}, "is 0 after epoch 4: the last 1"),
        ({"schedule": {"name": "linear", "per": "epoch"}}, None),
        ({"ema": {"decay": 0.99}}, "95 % of the moving average"),  # 0.99^5
        ({"ema": {"decay": 0.5}}, None),
        ({"ema": {"decay": 0.99, "warmup": True}}, None),
        (
            {"progressive": [{"from_epoch": 0, "size": 8}, {"from_epoch": 5, "size": 8}]},
            "nothing begins at epoch 5",
        ),
        ({"progressive": [{"from_epoch": 0, "size": 8}]}, None),
        ({"freeze": {"parts": ["features"], "until_epoch": 5}}, "freeze.until_epoch 5"),
        ({"freeze": {"parts": ["features"], "until_epoch": 4}}, None),
    ],
)
def test_settings_that_waste_epochs_or_judge_the_beginning_are_said(changes, want, tiny, capsys):
    _describe(build_run(tiny(epochs=5, steps_per_epoch=1, **changes), MemoryContext()))
    said = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert [want in line for line in said] == [True] if want else said == []
