"""Whether a training can begin: its network, and its first weights, told before a worker does.

Answers ``python -m workloads.training.describe beginning REQUEST`` for `gcpctl submit train` and
others; see `workloads.answering`.
"""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from workloads import answering
from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig, check_positions
from workloads.data.class_names import class_names
from workloads.data.errors import DataError
from workloads.models.errors import ModelError
from workloads.models.gcp_net import GCPNet, build_model
from workloads.models.shapes import meta_call
from workloads.models.weights.errors import WeightsError
from workloads.training.init import load_initial_weights, outputs_of_file

VERBS = {"beginning": "workloads.training.describe:describe_beginning"}
"""Verb -> `module:function`, imported when it is asked for."""

_MISTAKES = (ConfigError, DataError, OSError)
_ANY_CLASSES = ("a", "b")


def describe_beginning(request: Mapping[str, Any]) -> dict[str, Any]:
    """Build the network of a training, without memory, and give it its first weights.

    Where the classes of the data cannot be told without their images, the file's own stand for
    them: what does not depend on classes is met all the same.

    Args:
        request: `config`, a whole `TrainConfig`; `source`, to name in errors; and `weights`,
            whether those of its `init` are there to be read.

    Returns:
        `told`, what is taken and what is drawn anew; empty where no weights are read, or where the
        classes are not known.

    Raises:
        ConfigError: There is no such network, it cannot take such images, or the weights do not
            fit it; in the worker's own words.
        DataError: What names the classes is missing or damaged.
        OSError: A file cannot be read.
    """
    config = TrainConfig.model_validate(request["config"])
    try:
        _check_sizes(config)
        if config.init is None or not request["weights"]:
            return {"told": ""}
        classes = class_names(config.data)
        known = classes or _classes_of_file(config)
        with warnings.catch_warnings():  # a network without memory keeps none of the weights
            warnings.filterwarnings("ignore", message=".*is a no-op", category=UserWarning)
            told = load_initial_weights(_network(config, len(known)), config.init, classes=known)
    except WeightsError as error:
        raise _problem(request, "init.weights", error.message, error.hint) from None
    except ModelError as error:
        raise _problem(request, "model", error.message, error.hint) from None
    except ValueError as error:
        if isinstance(error, ConfigError | DataError):
            raise
        raise _problem(request, "", str(error)) from None
    return {"told": told if classes else ""}


def _problem(request: Mapping[str, Any], path: str, message: str, hint: str = "") -> ConfigError:
    return ConfigError(request["source"], [Problem(path, message, hint)])


def _check_sizes(config: TrainConfig) -> None:
    """Raise ValueError unless a network that only building tells of can take the images."""
    sizes = [size for size in config.image_sizes() if config.model.num_positions(size) is None]
    if not sizes:
        return
    backbone = _network(config, len(_ANY_CLASSES)).features
    for size in sizes:
        images = torch.empty(1, config.data.in_channels, size, size, device="meta")
        try:
            shape = meta_call(backbone, images).shape
        except (RuntimeError, ValueError, AssertionError):  # each network refuses in its own way
            check_positions(config.model, size, 0)
        else:
            found = shape[1] - backbone.prefix_tokens if backbone.tokens else shape[2:].numel()
            check_positions(config.model, size, found)


def _classes_of_file(config: TrainConfig) -> list[str]:
    """Return names for as many classes as the file has; they matter to who keeps them only."""
    assert config.init is not None
    any_classes = list(_ANY_CLASSES)
    if config.init.classifier != "keep":
        return any_classes
    return outputs_of_file(_network(config, len(any_classes)), config.init) or any_classes


def _network(config: TrainConfig, num_classes: int) -> GCPNet:
    with torch.device("meta"):  # shapes are all that is asked for
        return build_model(
            config.model, in_channels=config.data.in_channels, num_classes=num_classes
        )


def main(arguments: list[str]) -> int:
    """Answer one request; return 0 if there is an answer or an error for people, else 2."""
    return answering.answer(arguments, "workloads.training.describe", VERBS, _MISTAKES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
