"""What a file of weights shows of its network, and how its images are prepared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.cli.child import ask
from orchestrator.cli.output import talk
from orchestrator.jobs.plan_eval import KnownNetwork
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.images import ImagesConfig
from workloads.config.model import ModelConfig
from workloads.config.published_images import published_images
from workloads.config.validate import validate
from workloads.config.zoo import ZooEntry, load_zoo

_SMALL_IMAGES = 64
"""Networks of images up to this side were not trained on ImageNet's."""


def named_network(name: str) -> KnownNetwork:
    """Return the network that `--network` names.

    Raises:
        ConfigError: There is none of that name.
    """
    zoo = load_zoo()
    if name not in zoo:
        hint = did_you_mean(name, zoo) or "see them with: gcpctl model list"
        raise ConfigError("--network", [Problem("", f"there is no network {name!r}", hint)])
    entry = zoo[name]
    images = _images(entry.model, entry.in_channels, entry.image_size)
    return KnownNetwork(model=entry.model, name=name, images=images, in_channels=entry.in_channels)


def look_into(path: Path, network: str | None, overrides: Sequence[str]) -> KnownNetwork:
    """Tell the network of weights that can be seen from here, before a worker does.

    Args:
        path: A file, or the folder of a job or a checkpoint.
        network: The network's name in the zoo, if the person knows it.
        overrides: Those of the command; `model.*` count where the weights do not tell all.

    Raises:
        GcpctlError: The file cannot be read as weights, or does not fit the network.
        ConfigError: No such network.
    """
    if path.is_dir():
        return _look_into_checkpoint(path, network)
    named = None if network is None else named_network(network)
    request = {
        "file": str(path),
        "output": None,
        "zoo_name": network,
        "overrides": [text for text in overrides if text.startswith("model.")],
        "vector_order": None,
        "reorder": False,
        "force": False,
        "dry_run": True,
    }
    found = ask("workloads.models", "convert", request)
    for sentence in found["assumed"]:
        talk(f"assumed: {sentence}")
    model = validate(ModelConfig, found["model"], str(path))
    channels = found["in_channels"]
    entry = _entry_of(model, channels)
    size = found["image_size"] or (entry.image_size if entry is not None else None)
    return KnownNetwork(
        model=model,
        name=named.name if named is not None else (entry.name if entry is not None else ""),
        images=None if size is None else _images(model, channels, size),
        in_channels=channels,
        num_classes=found["num_classes"],
        classes=None if found["classes"] is None else tuple(found["classes"]),
    )


def _look_into_checkpoint(folder: Path, network: str | None) -> KnownNetwork:
    """A checkpoint of ours says everything itself."""
    if network is not None:
        problem = Problem("", f"{folder} is a checkpoint and says its network itself")
        raise ConfigError("--network", [problem])
    found: dict[str, Any] = ask("workloads.evaluation", "describe", {"weights": str(folder)})
    images = found["images"]
    model = validate(ModelConfig, found["model"], str(folder))
    entry = _entry_of(model, found["in_channels"])
    return KnownNetwork(
        model=model,
        name=entry.name if entry is not None else "",
        images=None if images is None else validate(ImagesConfig, images, str(folder)),
        in_channels=found["in_channels"],
        num_classes=found["num_classes"],
        classes=None if found["classes"] is None else tuple(found["classes"]),
    )


def _entry_of(model: ModelConfig, in_channels: int) -> ZooEntry | None:
    """Return the named network of these layers; fine-tuned to other classes it is still that."""
    entries = (entry for entry in load_zoo().values() if entry.in_channels == in_channels)
    return next((entry for entry in entries if _layers(entry.model) == _layers(model)), None)


def _layers(model: ModelConfig) -> dict[str, Any]:
    """Return what weights can tell; how deep a training was at random, they do not."""
    document = model.model_dump()
    document["backbone"].pop("drop_path", None)
    return document


def _images(model: ModelConfig, in_channels: int, size: int) -> ImagesConfig | None:
    """Return ImageNet's preparation; None for small or gray images, made as the data's usual."""
    if in_channels != 3 or size <= _SMALL_IMAGES:
        return None
    return published_images(model, size)
