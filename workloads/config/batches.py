"""How a global batch is shared out among workers."""

from workloads.config.errors import ConfigError, Problem


def batch_size_per_worker(global_batch_size: int, num_workers: int, source: str) -> int:
    """Share a global batch out equally.

    Args:
        global_batch_size: Images per optimizer step over all workers.
        num_workers: How many share them.
        source: The file or command line to name when it cannot be done.

    Raises:
        ConfigError: It does not divide.
    """
    size, rest = divmod(global_batch_size, num_workers)
    if rest:
        message = f"{global_batch_size} images do not divide evenly among {num_workers} workers"
        near = [str(n * num_workers) for n in (size, size + 1) if n]
        raise ConfigError(
            source, [Problem("global_batch_size", message, f"try {' or '.join(near)}")]
        )
    return size
