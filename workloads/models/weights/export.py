"""A network as a program for other runtimes, compared with the original before it counts."""

import importlib.metadata
import importlib.util
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from workloads import durable
from workloads.config.model import ModelConfig
from workloads.models.weights.errors import WeightsError
from workloads.models.weights.model_file import ModelFile, refuse_existing

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}
TOLERANCE = 1e-4
"""Largest difference of logits that passes, relative to the largest logit."""
_BATCH_SIZES = (1, 2, 5)
_NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """What was written and how it was checked.

    Attributes:
        runtime: The program that ran it for the check, with its version.
        batch_sizes: Batches that were compared.
        difference: Largest difference of two logits, relative to the largest logit.
    """

    path: Path
    image_size: int
    batch: int | None
    runtime: str
    batch_sizes: tuple[int, ...]
    difference: float


def export(
    model: ModelFile,
    path: Path,
    *,
    file_format: str,
    image_size: int | None = None,
    batch: int | None = None,
    force: bool = False,
) -> Exported:
    """Write a network, in evaluation mode and float32, for another runtime.

    The file is loaded again and run on random images before it takes its place.

    Args:
        model: The network.
        path: The file to write.
        file_format: `onnx`, or `torch-export` (``torch.export.load``).
        image_size: Pixels per side; None takes those it was trained on, or is made for.
        batch: Images per call; None leaves it open.
        force: Whether an existing file may be replaced.

    Raises:
        WeightsError: The pooling cannot be expressed, a package is missing, the images do not
            suit the network, a file exists, or the program's logits differ.
    """
    refuse_existing(path, force=force)
    size = image_size or model.image_size or usual_image_size(model.config)
    if model.config.num_positions(size) == 0:
        raise WeightsError(
            f"{model.config.backbone.name} cannot take images of {size} pixels",
            "give another --image-size",
        )
    if file_format == "onnx":
        _refuse_without_packages()
    network = model.build().float()
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write = _write_onnx if file_format == "onnx" else _write_torch_export
        images = _images((batch or 2, model.in_channels, size, size))
        with torch.no_grad():
            write(network, images, batch is None, beside)
        runtime, run = _load_onnx(beside) if file_format == "onnx" else _load_torch_export(beside)
        sizes = _BATCH_SIZES if batch is None else (batch, batch)
        difference = max(
            _difference(network, run, _images((n, *images.shape[1:]), seed=seed))
            for seed, n in enumerate(sizes)
        )
        if not difference <= TOLERANCE:  # a NaN fails too
            raise WeightsError(
                f"the exported network's logits differ by {difference:.1e} of the largest, more "
                f"than {TOLERANCE:g}; nothing was written",
                "please report it with the model file; the other --format may do",
            )
        with beside.open("rb") as handle:
            durable.sync(handle)
        durable.move(beside, path)
        durable.sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)
    return Exported(path, size, batch, runtime, tuple(dict.fromkeys(sizes)), difference)


def usual_image_size(config: ModelConfig) -> int:
    """Return the pixels per side that a network is made for."""
    backbone = config.backbone
    own: int | None = getattr(backbone, "image_size", None)
    if own is not None:
        return own
    if backbone.name == "inception_v3":
        return 299
    small = backbone.name == "small_resnet" or getattr(backbone, "stem", "") == "small"
    return 32 if small else 224


def _refuse_without_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise WeightsError(
            f"--format onnx needs {' and '.join(missing)}, which is not installed",
            "pip install 'gcpctl[export]'",
        )


def _images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _difference(network: nn.Module, run: Runner, images: Tensor) -> float:
    with torch.no_grad():
        expected = network(images)
    got = run(images)
    if got.shape != expected.shape:
        return float("inf")
    largest = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((got - expected).abs().max() / largest)


def _write_onnx(network: nn.Module, images: Tensor, any_batch: bool, path: Path) -> None:
    try:
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: "batch"},) if any_batch else None,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        operator = _NO_OPERATOR.search(str(error))
        first_line = _COLOUR.sub("", str(error).splitlines()[0])
        why = f"ONNX has no operator for {operator[1]}" if operator else first_line
        raise WeightsError(
            f"the network cannot be expressed in ONNX: {why}",
            "export with --format torch-export; of the matrix roots isqrt, products only, can be "
            "written as ONNX with up to 20 iterations",
        ) from error
    assert program is not None  # it is None with a file name only
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> tuple[str, Runner]:
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )
        name = "onnxruntime"
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
        name = "onnx"

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return f"{name} {importlib.metadata.version(name)}", run


def _write_torch_export(network: nn.Module, images: Tensor, any_batch: bool, path: Path) -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    buffer = io.BytesIO()  # to a full disk, torch's own writer fails with a RuntimeError
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def _load_torch_export(path: Path) -> tuple[str, Runner]:
    with path.open("rb") as handle:
        module = torch.export.load(handle).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return f"torch {torch.__version__}", run
