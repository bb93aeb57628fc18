"""What a person should know of a folder of images, or a pack, before training on it.

Needs no torch.
"""

from collections.abc import Callable

from workloads.data.check_folder import check_folder
from workloads.data.check_pack import check_packed
from workloads.data.check_report import CheckReport
from workloads.data.filesystem import open_filesystem
from workloads.data.pack_manifest import is_packed


def check_data(
    path: str,
    *,
    workers: int = 1,
    max_pixels: int = 50_000_000,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> CheckReport:
    """Look at every image below `path`: an image folder or a pack, a local path or a URI.

    Args:
        progress: Told how many images, or files of a pack, are done, of how many.

    Raises:
        DataError: If there is no such folder, or the pack is unfinished.
        OSError: The storage failed.
    """
    filesystem, root = open_filesystem(path)
    if is_packed(filesystem, root):
        return check_packed(filesystem, root, path, progress)
    return check_folder(filesystem, root, path, workers, max_pixels, progress)
