"""How a global batch is shared out among workers."""

from workloads.config.errors import ConfigError, Problem
from workloads.config.train import TrainConfig


def batch_size_per_worker(
    global_batch_size: int, num_workers: int, source: str, *, in_pairs: bool = False
) -> int:
    """Share a global batch out equally.

    Args:
        global_batch_size: Images per optimizer step over all workers.
        num_workers: How many share them.
        source: The file or command line to name when it cannot be done.
        in_pairs: A share must hold whole pairs of images, as mixing blends them.

    Raises:
        ConfigError: It does not divide.
    """
    size, rest = divmod(global_batch_size, num_workers)
    if rest or (in_pairs and size % 2):
        unit = 2 * num_workers if in_pairs else num_workers
        message = f"{global_batch_size} images do not divide evenly among {num_workers} workers"
        if not rest:
            message = f"mix blends pairs of images, and {num_workers} workers have {size} each"
        near = [str(n * unit) for n in (global_batch_size // unit, global_batch_size // unit + 1)]
        hint = f"try {' or '.join(n for n in near if n != '0')}"
        raise ConfigError(source, [Problem("global_batch_size", message, hint)])
    return size


def worker_counts(
    global_batch_size: int, least: int, most: int, source: str, *, in_pairs: bool = False
) -> tuple[int, ...]:
    """Return the numbers of workers, ascending, that share a global batch out equally.

    Args:
        global_batch_size: Images per optimizer step over all workers.
        least: Fewest workers.
        most: Most workers.
        source: The file or command line to name when there is none.
        in_pairs: A share must hold whole pairs of images, as mixing blends them.

    Raises:
        ConfigError: No number from `least` to `most` does; names those that would.
    """
    shares = global_batch_size // 2 if in_pairs else global_batch_size
    divide = [n for n in range(1, shares + 1) if shares % n == 0]
    found = tuple(n for n in divide if least <= n <= most)
    if not found:
        what = "pairs of images" if in_pairs else "images"
        message = f"{shares} {what} divide evenly among no number of workers from {least} to {most}"
        near = [n for n in divide if n < least][-1:] + [n for n in divide if n > most][:1]
        hint = f"{' or '.join(map(str, near))} would; or choose another global_batch_size"
        raise ConfigError(source, [Problem("job.min_workers", message, hint)])
    return found


def count_parts(share: int, most: int | None, source: str, *, in_pairs: bool = False) -> int:
    """Return into how few equal parts a worker's share of a batch is cut to fit in memory.

    Args:
        share: Images of the worker.
        most: Images that it holds at once; None for no limit.
        source: The file or command line to name when it cannot be done.
        in_pairs: Each part must hold whole pairs of images, as mixing blends them.

    Raises:
        ConfigError: Not even pairs fit.
    """
    unit = 2 if in_pairs else 1
    if most is not None and most < unit:
        message = f"got {most}; mix blends pairs of images"
        raise ConfigError(source, [Problem("compute.max_images_per_worker", message, "at least 2")])
    units = share // unit
    fitting = units if most is None else most // unit
    return next(n for n in range(1, units + 1) if units % n == 0 and units // n <= fitting)


def refuse_lone_values(config: TrainConfig, at_once: int, source: str) -> None:
    """Refuse to train a batch norm on one value of each channel, of which there is no variance.

    Args:
        config: The training.
        at_once: Fewest images that a worker computes at once.
        source: The file or command line to name.

    Raises:
        ConfigError: Images are computed one by one, and the backbone leaves one position of each.
    """
    size = min(step.size for step in config.progressive) if config.progressive else 0
    positions = config.model.num_positions(size or config.images.size)
    if at_once > 1 or positions != 1 or not _trains_last_norm(config):
        return
    message = (
        f"a worker computes 1 image at once, and {config.model.backbone.name} leaves 1 position of "
        f"it: batch norm needs more than one value of each channel"
    )
    hint = "larger images, fewer workers, or a larger batch or compute.max_images_per_worker"
    raise ConfigError(source, [Problem("global_batch_size", message, hint)])


def _trains_last_norm(config: TrainConfig) -> bool:
    """Whether batch norms that see the features, or their reduction, use statistics of a batch."""
    model, freeze = config.model, config.freeze
    still = set(freeze.parts) if freeze is not None and freeze.until_epoch is None else set()
    reduces = model.head.reduced_channels is not None and not model.uses_class_token_only
    return (model.backbone.norms_last_map and "features" not in still) or (
        reduces and "reduction" not in still
    )
