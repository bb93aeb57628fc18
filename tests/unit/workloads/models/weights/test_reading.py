"""Files from anywhere: what is read, what is refused and why."""

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from workloads.models.weights.errors import WeightsError
from workloads.models.weights.reading import read_weights


class _Traced(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def _cut(path: Path, *, legacy: bool) -> None:
    torch.save(_state(), path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _state() -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.ones(64, 64), "fc.bias": torch.zeros(64)}


def _save(value):
    return lambda path: torch.save(value, path)


def _text(words: str):
    return lambda path: path.write_text(words)


REFUSED = {
    "a module": (_save(nn.Linear(2, 2)), ["torch.nn.modules.linear.Linear", "state_dict()"]),
    "a module, old format": (
        lambda path: torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=False),
        ["torch.nn.modules.linear.Linear", "not read"],
    ),
    "a layer beside": (
        _save({"state_dict": _state(), "ema": nn.Linear(2, 2)}),
        ["torch.nn.modules.linear.Linear", "argparse.Namespace beside the weights are fine"],
    ),
    "a program in the arguments": (
        _save({"state_dict": _state(), "args": argparse.Namespace(run=os.system)}),
        ["system", "not read"],
    ),
    "a program": (
        lambda path: torch.jit.trace(_Traced(), torch.ones(1)).save(str(path)),
        ["TorchScript"],
    ),
    "cut off": (lambda path: _cut(path, legacy=False), ["cut off", "bytes"]),
    "cut off, old format": (lambda path: _cut(path, legacy=True), ["cut off", "bytes"]),
    "empty": (lambda path: path.touch(), ["is empty"]),
    "a web page": (_text("<!DOCTYPE html><html>404</html>"), ["web page", "download failed"]),
    "a pointer": (_text("version https://git-lfs.github.com/spec/v1\n"), ["Git LFS"]),
    "MATLAB": (_text("MATLAB 5.0 MAT-file"), ["MATLAB", "upper_columns"]),
    "text": (_text("hello world\n"), ["not written by torch.save"]),
    "an empty dict": (_save({}), ["empty dict"]),
    "a list": (_save([torch.ones(1)]), ["a list of 1"]),
    "no weights": (_save({"epoch": 3, "best": torch.ones(())}), ["no weights", "epoch: a int"]),
    "sparse": (_save({"a": torch.eye(2).to_sparse()}), ["a is sparse"]),
    "twice": (
        _save({"features.module.a": torch.ones(1), "features.a": torch.ones(1)}),
        ["twice", "features.module.a"],
    ),
    "a folder": (lambda path: path.mkdir(), ["without a checkpoint", "step-"]),
    "nothing": (lambda path: None, ["there is no file"]),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_arguments_and_numpy_numbers_beside_the_weights_are_read(legacy, tmp_path):
    """As DeiT's and timm's training programs save them."""
    saved = {
        "model": _state(),
        "args": argparse.Namespace(lr=1, betas=[0.9, 0.999]),
        "best": np.float64(76.5),
        "epoch": np.int64(3),
    }
    path = tmp_path / "file.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    read = read_weights(path)
    assert set(read.tensors) == {"fc.weight", "fc.bias"}
    assert read.facts["best"] == 76.5


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings(
    "ignore:Validating sparse tensor", "ignore::DeprecationWarning", "ignore:.*jit:FutureWarning"
)
def test_what_is_no_plain_file_of_weights_is_refused_with_a_reason(name, tmp_path):
    make, words = REFUSED[name]
    path = tmp_path / "file.pth"
    make(path)
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert all(word in str(caught.value) for word in [*words, str(path)])
    assert caught.value.exit_code == (5 if name == "nothing" else 2)


def test_nothing_in_a_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": _state(), "args": Trap()}, tmp_path / "file.pth")
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "file.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_wrappers_and_prefixes_are_taken_off_and_facts_kept(wrapper, tmp_path):
    inner = {f"module._orig_mod.{name}": tensor for name, tensor in _state().items()}
    value = {wrapper: inner, "arch": "x", "epoch": 3, "best": torch.tensor(2.5), "optimizer": {}}
    torch.save(value, tmp_path / "file.pth")
    file = read_weights(tmp_path / "file.pth")
    assert list(file.tensors) == ["fc.weight", "fc.bias"]
    assert file.facts == {"arch": "x", "epoch": 3, "best": 2.5}
    assert file.left == {"optimizer": "not the weights"}


def test_of_two_sets_of_weights_the_first_is_taken_and_the_other_reported(tmp_path):
    torch.save({"model": _state(), "weights": _state()}, tmp_path / "file.pth")
    assert read_weights(tmp_path / "file.pth").left == {
        "weights": "not the weights; 'model' is taken"
    }


def test_old_format_and_safetensors_are_read_alike(tmp_path):
    torch.save(_state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(_state(), tmp_path / "new.safetensors")
    for name in ("old.pth", "new.safetensors"):
        tensors = read_weights(tmp_path / name).tensors
        assert all(torch.equal(tensors[key], value) for key, value in _state().items())


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(WeightsError, match="no safetensors file"):
        read_weights(tmp_path / "bad.safetensors")
