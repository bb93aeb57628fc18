"""The data sources by their name in recipes."""

from typing import Any, Protocol

from workloads.config.data import DataConfig
from workloads.data.bundle import DataBundle, ImageDataset
from workloads.data.digits import build_digits
from workloads.data.image_folder import build_image_folder
from workloads.data.peers import ALONE, Peers

__all__ = ["SOURCES", "DataBundle", "DataSource", "ImageDataset", "build_data"]


class DataSource(Protocol):
    """Build the datasets from the keywords of one config class, and the seed of augmentation.

    A source may share work out among `peers`; each rank gets the whole of the data all the same.
    """

    def __call__(self, *, seed: int, peers: Peers = ALONE, **options: Any) -> DataBundle:
        """Return the datasets.

        Raises:
            DataError: If they are missing or broken.
        """
        ...


SOURCES: dict[str, DataSource] = {
    "digits": build_digits,
    "image_folder": build_image_folder,
}


def build_data(config: DataConfig, *, seed: int, peers: Peers = ALONE) -> DataBundle:
    """Build the datasets that `config` asks for; `seed` decides the augmentation only."""
    return SOURCES[config.name](seed=seed, peers=peers, **config.model_dump(exclude={"name"}))
