"""What a checkpoint of ours says of the images that its network was trained on."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from workloads.config.data import fill_usual
from workloads.config.images import ImagesConfig


def trained_images(entries: Mapping[str, Any]) -> ImagesConfig | None:
    """Return how images became what the network took; None where the checkpoint does not say.

    Checkpoints of version 0.1.0 say the size and the source alone; the rest is the source's usual.

    Args:
        entries: The outermost dict of a file; of other files than checkpoints nothing is known.
    """
    config = entries.get("config")
    if not isinstance(config, Mapping) or not isinstance(config.get("data"), Mapping):
        return None
    data, images = config["data"], config.get("images")
    if images is None:
        images = {
            new: data[old]
            for new, old in (("size", "image_size"), ("resize", "resize_size"))
            if data.get(old) is not None
        }
    filled = fill_usual(
        {"data": {"name": data.get("name")}, "images": images}, sections=("images",)
    )
    try:
        return ImagesConfig.model_validate(filled["images"])
    except ValidationError:  # of another version's making
        return None
