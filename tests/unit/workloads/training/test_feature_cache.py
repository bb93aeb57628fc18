"""Training a head on stored features is training it on images, only sooner."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from workloads.training import feature_cache
from workloads.training.loop import train
from workloads.worker.context import MemoryContext
from workloads.worker.folder_context import FolderContext

FROZEN = {"freeze": {"parts": ["features"]}, "optim": {"name": "sgd", "lr": 0.05}}
PLAIN = {"augment": {"crop": {"name": "centre_crop"}, "flip": 0.0}}


@pytest.fixture
def trained(tiny, tmp_path) -> dict[str, dict[str, str]]:
    """Weights to begin with."""
    context = FolderContext(tmp_path / "first")
    train(tiny(epochs=1), context)
    folders = sorted((tmp_path / "first" / "checkpoints").glob("step-*"))
    return {"init": {"weights": str(folders[-1]), "classifier": "new"}}


class Kept(FolderContext):
    """Keeps the last state."""

    state: dict

    def save_checkpoint(self, state, **options):
        self.state = state["model"]
        super().save_checkpoint(state, **options)


def weights(config, root: Path, **where):
    context = Kept(root, **where)
    result = train(config, context)
    return result, {name: value.clone() for name, value in context.state.items()}


def rows(context: FolderContext) -> list[dict]:
    return [json.loads(line) for line in context.paths.spool.read_text().splitlines()]


def test_the_head_learns_the_same_as_on_images(tiny, trained, tmp_path):
    change = {**FROZEN, **PLAIN, **trained}
    plain, want = weights(tiny(**change), tmp_path / "jobs" / "plain")
    cached, got = weights(tiny(**change, cache_features={}), tmp_path / "jobs" / "cached")
    assert cached.val_top1 == plain.val_top1
    assert got.keys() == want.keys()  # the whole network is saved
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=name)
    held = [name for name in want if name.startswith("features.")]
    assert held
    assert all(torch.equal(got[name], want[name]) for name in held)


def test_with_as_many_views_as_epochs_augmented_images_give_the_same(tiny, trained, tmp_path):
    change = {**FROZEN, **trained, "augment": {"crop": {"name": "pad_crop", "padding": 1}}}
    _, want = weights(tiny(**change), tmp_path / "jobs" / "plain")
    _, got = weights(tiny(**change, cache_features={"views": 2}), tmp_path / "jobs" / "cached")
    _, one = weights(tiny(**change, cache_features={"views": 1}), tmp_path / "jobs" / "one")
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5, msg=name)
    name = "head.classifier.weight"
    assert not torch.allclose(one[name], want[name], rtol=1e-4, atol=1e-5)


def test_the_next_training_finds_them_and_the_backbone_is_not_asked(
    tiny, trained, tmp_path, monkeypatch
):
    change = {**FROZEN, **PLAIN, **trained, "cache_features": {}}
    _, first = weights(tiny(**change), tmp_path / "jobs" / "a")

    def fail(run, images):
        raise AssertionError("computed again")

    monkeypatch.setattr(feature_cache, "_features", fail)
    _, second = weights(tiny(**change), tmp_path / "jobs" / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Another head on the same backbone, and another seed where nothing is left to chance.
    pooled = tiny(**change).model_dump(mode="json")
    pooled["model"]["head"]["pooling"] = {"name": "gap"}
    pooled["seed"] = 3
    weights(type(tiny()).model_validate(pooled), tmp_path / "jobs" / "c")
    with pytest.raises(AssertionError, match="computed again"):
        weights(
            tiny(**{**change, "images": {"size": 8, "mean": [0.4], "std": [0.3]}}),
            tmp_path / "jobs" / "d",
        )


def test_an_interrupted_training_ends_with_the_same_weights(tiny, trained, tmp_path):
    config = tiny(**FROZEN, **PLAIN, **trained, cache_features={}, epochs=3)
    whole, want = weights(config, tmp_path / "jobs" / "whole")
    root = tmp_path / "jobs" / "halved"
    context = Kept(root)
    stops = iter([False] * 15 + [True] * 100)
    context.should_stop = lambda: next(stops)  # type: ignore[method-assign]
    assert train(config, context).stopped
    result, got = weights(config, root, attempt=2)
    assert result.weights_sha256 == whole.weights_sha256
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_what_a_killed_builder_left_is_made_anew(tiny, trained, tmp_path):
    config = tiny(**FROZEN, **PLAIN, **trained, cache_features={})
    _, want = weights(config, tmp_path / "jobs" / "a")
    (folder,) = [p for p in (tmp_path / "jobs" / ".cache" / "features").iterdir() if p.is_dir()]
    torn = np.lib.format.open_memmap(folder / "train-0.npy", "r+")
    torn[:] = 0
    torn.flush()
    (folder / "features.json").unlink()
    folder.rename(folder.with_name(folder.name + ".part"))
    _, got = weights(config, tmp_path / "jobs" / "b")
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_any_number_of_ranks_stores_the_same_bits(tiny, trained, tmp_path, on_ranks):
    change = {**FROZEN, **PLAIN, **trained, "epochs": 1, "global_batch_size": 126}
    config = tiny(**change, cache_features={})

    def run(world_size):
        def action(rank):
            root = tmp_path / f"of-{world_size}" / "job"
            context = FolderContext(root, rank=rank, world_size=world_size)
            return train(config, context).num_val_images

        return action

    for world_size in (1, 3):
        assert on_ranks(run(world_size), world_size) == [359] * world_size
    one, three = (
        {
            path.name: path.read_bytes()
            for path in sorted((tmp_path / f"of-{n}" / ".cache" / "features").rglob("*.npy"))
        }
        for n in (1, 3)
    )
    assert len(one) == 4
    assert one == three


def test_without_folders_they_are_kept_in_memory(tiny, trained):
    context = MemoryContext()
    config = tiny(**FROZEN, **PLAIN, **trained, cache_features={"dtype": "float16"})
    assert train(config, context).num_val_images == 359


def test_no_room_is_said_before_anything_is_computed(tiny, trained, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda folder: usage)
    config = tiny(**FROZEN, **PLAIN, **trained, cache_features={"views": 3})
    with pytest.raises(ValueError, match=r"cache_features: takes .* GB in .*fewer views"):
        train(config, FolderContext(tmp_path / "jobs" / "a"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"freeze": None}, "must never move"),
        ({"freeze": {"parts": ["features"], "until_epoch": 1}}, "must never move"),
        ({"init": None}, "never trained"),
        ({"mix": {"mixup": 0.2}}, "mix blends"),
        ({"validation": {"crops": "flip"}}, "one view of each"),
    ],
)
def test_what_would_change_features_is_refused(change, reason, tiny):
    with pytest.raises(ValidationError, match=reason):
        tiny(**{**FROZEN, "init": {"weights": "x"}, "cache_features": {}, **change})
