"""What a person should know of a folder of images, or a pack, before training on it.

Needs no torch.
"""

from collections.abc import Callable

from workloads.data.check_folder import check_folder
from workloads.data.check_pack import check_packed
from workloads.data.check_report import CheckReport
from workloads.data.filesystem import open_filesystem
from workloads.data.pack_manifest import is_packed
from workloads.data.scan import SPLITS


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
    from pyarrow import fs

    filesystem, root = open_filesystem(path)
    of_splits = filesystem.get_file_info([f"{root}/{split}" for split in SPLITS])
    has_split = any(info.type == fs.FileType.Directory for info in of_splits)
    if is_packed(filesystem, root) and not has_split:  # others call their files manifest.json, too
        return check_packed(filesystem, root, path, progress)
    return check_folder(filesystem, root, path, workers, max_pixels, progress)
