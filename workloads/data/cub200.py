"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011) as its tables tell it."""

from workloads.data.cub200_tables import read_tables
from workloads.data.decode import MAX_PIXELS
from workloads.data.files import LocalFiles
from workloads.data.image_folder import FolderStore
from workloads.data.peers import ALONE, Peers
from workloads.data.store import SourceImages


def build_cub200(*, path: str, loader_workers: int = 0, peers: Peers = ALONE) -> SourceImages:
    """Read the tables under `path`: the folder CUB_200_2011, or the one that holds it.

    `loader_workers` is for the loaders. Images are decoded when they are needed.

    Raises:
        DataError: If a table or an image is missing, or they do not belong together.
        OSError: The storage failed.
    """
    found = read_tables(path)
    files = LocalFiles(found.root / "images")
    return SourceImages(
        train=FolderStore(files, found.samples["train"], max_pixels=MAX_PIXELS),
        val=FolderStore(files, found.samples["val"], max_pixels=MAX_PIXELS),
        classes=found.classes,
        in_channels=3,
        digest=found.digest,
    )
