"""From what a person types to a network's config: a zoo name, a recipe or a file, and overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.recipes import load_recipe, recipe_files
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.model import ModelConfig
from workloads.config.validate import validate
from workloads.config.zoo import ZooEntry, load_zoo

_DIGITS = {"image_size": 8, "in_channels": 1, "num_classes": 10}
_PHOTOGRAPHS = {"image_size": 224, "in_channels": 3, "num_classes": 1000}


@dataclass(frozen=True)
class Network:
    """A network by its config.

    Attributes:
        name: What the person called it.
        origin: `zoo`, or the path of the recipe.
        overrides: What was changed in it.
        zoo_name: The named network that it is, once overrides are applied; None if it is none.
    """

    name: str
    origin: str
    overrides: tuple[str, ...]
    zoo_name: str | None
    model: ModelConfig
    image_size: int
    in_channels: int
    num_classes: int

    def request(self) -> dict[str, Any]:
        """Return what `workloads.models.answers` takes."""
        return {
            "name": self.name,
            "model": self.model.model_dump(mode="json"),
            "image_size": self.image_size,
            "in_channels": self.in_channels,
            "num_classes": self.num_classes,
        }


def find_network(
    name: str,
    overrides: Sequence[str] = (),
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
) -> Network:
    """Return the network that `name` and `overrides` say.

    Args:
        name: Of a zoo network or a recipe, or the path of a recipe file.
        overrides: `head.reduced_channels=128`, laid over the network; a leading `model.`, as
            `gcpctl submit` wants it, may stand there too.
        image_size: Pixels per side; None takes those of the name.
        num_classes: None takes those of the name, 1,000 for a folder of images.

    Raises:
        NotFoundError: No such network, recipe or file; names the closest.
        ConfigError: Overrides that cannot be used, or images that the network cannot take.
    """
    origin, document, images = _look_up(name)
    cut = [override.removeprefix("model.") for override in overrides]
    source = f"{name} with overrides" if overrides else name
    model = validate(ModelConfig, apply_overrides(document, cut), source)
    if image_size is not None:
        images["image_size"] = image_size
    if num_classes is not None:
        images["num_classes"] = num_classes
    _check_images(model, images["image_size"], source)
    return Network(
        name=name,
        origin=origin,
        overrides=tuple(overrides),
        zoo_name=_name_of(model, images),
        model=model,
        **images,
    )


def complete_networks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the zoo networks and recipes that begin so."""
    return [name for name in (*load_zoo(), *recipe_files("train")) if name.startswith(incomplete)]


def _look_up(name: str) -> tuple[str, dict[str, Any], dict[str, int]]:
    """Return where a network comes from, its config as a document, and its images."""
    zoo = load_zoo()
    if name in zoo:
        entry = zoo[name]
        return "zoo", entry.model.model_dump(mode="json"), _images_of(entry)
    is_file = "/" in name or name.endswith((".yaml", ".yml"))
    recipes = recipe_files("train")
    if not is_file and name not in recipes:
        hint = did_you_mean(name, (*zoo, *recipes))
        more = "see them with: gcpctl model list, gcpctl recipes list"
        raise NotFoundError(
            f"there is no network or recipe {name!r}", f"{hint} {more}" if hint else more
        )
    recipe = load_recipe(name, "train")
    model = recipe.document.get("model", {})
    if not isinstance(model, dict):
        raise ConfigError(recipe.source, [Problem("model", f"wants a mapping, got {model!r}")])
    return recipe.source, model, _images_of_data(recipe.document.get("data", {}))


def _images_of(entry: ZooEntry) -> dict[str, int]:
    return {
        "image_size": entry.image_size,
        "in_channels": entry.in_channels,
        "num_classes": entry.num_classes,
    }


def _images_of_data(data: Any) -> dict[str, int]:
    """Read a recipe's `data`, whose path may be left for the command line to say."""
    name = data.get("name", "digits") if isinstance(data, dict) else data
    if name == "digits":
        return dict(_DIGITS)
    size = data.get("image_size") if isinstance(data, dict) else None
    return {**_PHOTOGRAPHS, "image_size": size} if isinstance(size, int) else dict(_PHOTOGRAPHS)


def _name_of(model: ModelConfig, images: dict[str, int]) -> str | None:
    for entry in load_zoo().values():
        if entry.model == model and _images_of(entry) == images:
            return entry.name
    return None


def _check_images(model: ModelConfig, image_size: int, source: str) -> None:
    """Refuse images that leave nothing to pool.

    Raises:
        ConfigError: Says which backbone, and what can be changed.
    """
    backbone = model.backbone
    positions = model.num_positions(image_size)
    fixed = getattr(backbone, "image_size", None)
    problem = None
    if fixed is not None and fixed != image_size:
        problem = Problem(
            "",
            f"{backbone.name} is made for images of {fixed} pixels, not {image_size}",
            f"set both: --image-size {image_size} backbone.image_size={image_size}",
        )
    elif positions == 0:
        problem = Problem(
            "", f"images of {image_size} pixels are too small for {backbone.name}", _smallest(model)
        )
    elif positions is not None and positions < model.min_positions:
        problem = Problem(
            "",
            f"images of {image_size} pixels give one position after {backbone.name}, and "
            f"{model.head.pooling.name} needs more: the covariance of one is zero",
            _smallest(model),
        )
    if problem is not None:
        raise ConfigError(source, [problem])


def _smallest(model: ModelConfig) -> str:
    """Say the smallest image that leaves something to pool."""
    needed = model.min_positions
    for size in range(1, 1025):
        positions = model.num_positions(size)
        if positions is not None and positions >= needed:
            return f"it takes {size} pixels and more"
    return ""
