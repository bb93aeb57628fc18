"""Read the tensors of a file that may come from anywhere, as data and never as a program."""

import _codecs
import argparse
import errno
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workloads.models.weights.errors import NOT_FOUND, WeightsError, shorten

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "state")
"""Entries under which training programs store the weights; the first that is there is taken."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and wrapper classes put before every name."""

_CHUNK_BYTES = 1 << 20
_UNSAFE_GLOBAL = re.compile(r"GLOBAL (\S+) was not an allowed global")
_BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"MATLAB": (
        "is a MATLAB file",
        "MatConvNet networks are stored as NumPy arrays first: export the arrays under PyTorch "
        "names, torch.save them, and convert that with --vector-order upper_columns",
    ),
    b"version https://git-lfs": ("is a pointer of Git LFS, not the file", "git lfs pull"),
    b"<": ("is a web page, not weights", "the download failed; fetch it again and look at it"),
    b"\x93NUMPY": ("is a NumPy array", "torch.save a dict of tensors under PyTorch names"),
}
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np._core.multiarray.scalar,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
    *{type(np.dtype(letter)) for letter in "?bBhHiIlLqQefd"},
    _codecs.encode,  # bytes within a NumPy number
]
"""Holders of data, without code of their own, that training programs leave beside the weights: the
command line's arguments and NumPy numbers."""
_STEP_FOLDER = re.compile(r"step-\d{10}(\.old)?")


@dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Attributes:
        path: The file that was read; in a folder of checkpoints the one that was chosen.
        sha256: Its digest.
        tensors: Name -> tensor, without prefixes.
        facts: Numbers and texts beside the weights: `arch`, `epoch`, `best_prec1`.
        left: What was left aside, with the reason.
        entries: The outermost dict, for files of our own.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    facts: dict[str, str | int | float] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    entries: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> WeightFile:
    """Read a file of torch.save or safetensors, or a checkpoint or job folder of ours.

    Raises:
        WeightsError: It is missing or damaged, has no weights, or is a program and not data.
        OSError: The storage failed.
    """
    file = _file(path)
    entries = read_plain(file)
    tensors, left = _weights(entries, file)
    tensors = _strip(tensors, file)
    facts = {}
    if not _has_tensors(entries):  # else a counter of BN would pass for a fact
        numbers = {str(key): _number(value) for key, value in entries.items()}
        facts = {k: value for k, value in numbers.items() if isinstance(value, str | int | float)}
    return WeightFile(file, sha256(file), tensors, facts, left, entries)


def read_plain(file: Path) -> dict[str, Any]:
    """Read the dict that a file holds; tensors, numbers, texts, lists and dicts only."""
    _refuse_strangers(file)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with file.open("rb") as handle, torch.serialization.safe_globals(_HARMLESS):
            value = torch.load(handle, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except OSError as error:
        if error.errno != errno.EINVAL:  # a cut archive makes torch seek before its beginning
            raise
        raise _explain(file, error) from None
    except Exception as error:  # foreign bytes may fail anywhere in the unpickler
        raise _explain(file, error) from None
    if not isinstance(value, Mapping):
        raise WeightsError(f"{file} holds {_kind(value)}, not named weights", _SAVE)
    return dict(value)


def sha256(file: Path) -> str:
    """Return the digest of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


_SAVE = "where the network can be loaded: torch.save(model.state_dict(), 'weights.pth')"


def _file(path: Path) -> Path:
    if not path.exists():
        raise WeightsError(f"there is no file {path}", exit_code=NOT_FOUND)
    if not path.is_dir():
        return path
    if (path / "state.pt").is_file():
        return path / "state.pt"
    checkpoints = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = sorted(f for f in checkpoints.iterdir() if _STEP_FOLDER.fullmatch(f.name))
    if not steps:
        raise WeightsError(
            f"{path} is a folder without a checkpoint in it",
            "give a file, a job's folder, or one of its checkpoints/step-... folders",
        )
    chosen = steps[-1]
    best = checkpoints / "best.json"
    if best.is_file():
        chosen = checkpoints / f"step-{int(json.loads(best.read_bytes())['step']):010d}"
    return _file(chosen / "state.pt")


def _refuse_strangers(file: Path) -> None:
    with file.open("rb") as handle:
        start = handle.read(64)
    if not start:
        raise WeightsError(f"{file} is empty", "the download or the copy failed")
    for beginning, (what, hint) in _BEGINNINGS.items():
        if start.startswith(beginning):
            raise WeightsError(f"{file} {what}", hint)


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise WeightsError(
            f"{file} needs the package safetensors, which is not installed",
            "pip install 'gcpctl[timm]'",
        ) from None
    try:
        return dict(load_file(file, device="cpu"))
    except SafetensorError as error:
        raise WeightsError(f"{file} is damaged or no safetensors file: {error}") from None


def _explain(file: Path, error: Exception) -> WeightsError:
    text = str(error)
    unsafe = _UNSAFE_GLOBAL.search(text) or re.search(
        r"nsupported (?:GLOBAL|global|class) (\S+)", text
    )
    if unsafe:
        return WeightsError(
            f"{file} holds an object of type {unsafe[1].rstrip('.')} besides tensors; reading it "
            "would run code from the file, so it is not read",
            f"{_SAVE}; numbers, texts, lists and an argparse.Namespace beside the weights are fine",
        )
    if "TorchScript" in text:
        return WeightsError(f"{file} is a TorchScript program, not weights", _SAVE)
    size = file.stat().st_size
    return WeightsError(
        f"{file} ({size:,} bytes) is cut off, damaged, or was not written by torch.save",
        "compare its size and SHA-256 with the source, and fetch it again",
    )


def _weights(entries: dict[str, Any], file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Find the dict of tensors, at the top or inside a wrapper."""
    if not entries:
        raise WeightsError(f"{file} holds an empty dict", _SAVE)
    source, left = entries, {}
    if not _has_tensors(entries):
        found = [key for key in WRAPPERS if _has_tensors(entries.get(key))]
        if not found:
            keys = shorten([f"{key}: {_kind(value)}" for key, value in entries.items()])
            raise WeightsError(f"{file} holds no weights; it has\n{keys}", _SAVE)
        source = entries[found[0]]
        left = {
            key: "not the weights" + (f"; {found[0]!r} is taken" if key in found else "")
            for key, value in entries.items()
            if key != found[0] and isinstance(value, Mapping | list | tuple)
        }
    tensors: dict[str, Tensor] = {}
    for key, value in source.items():
        if not isinstance(value, Tensor):
            left[str(key)] = f"{_kind(value)}, not a tensor"
        elif value.layout != torch.strided or value.is_quantized:
            raise WeightsError(f"{file}: {key} is sparse or quantised", "save it dense, in float")
        else:
            tensors[str(key)] = value.detach()
    return tensors, left


def _has_tensors(value: object) -> bool:
    """Whether most entries are tensors; a lone `best_prec1` tensor makes no state dict."""
    if not isinstance(value, Mapping) or not value:
        return False
    return 2 * sum(isinstance(item, Tensor) for item in value.values()) > len(value)


def _strip(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    rename: Callable[[str], str] = lambda key: key.replace(".module.", ".")  # noqa: E731
    renamed = {rename(key): value for key, value in tensors.items()}
    if len(renamed) != len(tensors):
        twice = [key for key in tensors if rename(key) != key and rename(key) in tensors]
        raise WeightsError(f"{file} holds some weights twice:\n{shorten(twice)}")
    return renamed


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {len(value)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"
