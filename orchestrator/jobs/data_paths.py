"""Where the files that a config names are, for processes that start in another folder."""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from workloads.config.base import Config
from workloads.config.errors import ConfigError, Problem
from workloads.data.filesystem import REMOTE_SCHEMES

_C = TypeVar("_C", bound=Config)

_URI = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
"""`s3://bucket/x`, `runs:/x`: not a path of the file system, and left as it is."""
_PLACES = (("data", "path"), ("init", "weights"))
_SCHEMES = {
    "data": ("file", *REMOTE_SCHEMES),
    "init": ("runs", "models", "mlflow-artifacts"),
}
"""Of the URIs that are understood in each place."""


def is_uri(text: str) -> bool:
    """Whether a text names something that is not a local path."""
    return _URI.match(text) is not None


def with_absolute_paths(config: _C, folder: Path | None, source: str) -> _C:
    """Return a config whose `data.path` and `init.weights` are absolute.

    Args:
        config: A config with `data`, and perhaps `init`.
        folder: Where relative paths begin; None where the cluster sees other folders than we do.
        source: The file or command line to name in errors.

    Raises:
        ConfigError: A path is relative and there is no folder that it could be relative to.
    """
    problems: list[Problem] = []
    changed: dict[str, Any] = {}
    for section, key in _PLACES:
        part = getattr(config, section, None)
        given = getattr(part, key, None)
        if part is None or not isinstance(given, str):
            continue
        if is_uri(given):
            problems += _unknown_scheme(section, key, given)
            continue
        path = Path(os.path.expanduser(given))
        if folder is not None:
            path = folder / path
        if not path.is_absolute():
            message = f"{given!r} is relative; say where it is on the cluster"
            problems.append(Problem(f"{section}.{key}", message, "begin it with /"))
        changed[section] = part.model_copy(update={key: str(path)})
    if problems:
        raise ConfigError(source, problems)
    return config.model_copy(update=changed)


def _unknown_scheme(section: str, key: str, uri: str) -> list[Problem]:
    scheme, slashes, _ = uri.partition("://")
    if not slashes or scheme.lower() in _SCHEMES[section]:
        return []
    known = ", ".join(f"{name}:" for name in _SCHEMES[section])
    message = f"nothing is read from {scheme}:// here"
    return [Problem(f"{section}.{key}", message, f"a path, or a URI with {known}")]
