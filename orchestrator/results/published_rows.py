"""Whether a training is the one whose result was published: its recipe's, as it stands."""

from collections.abc import Mapping
from functools import lru_cache

from orchestrator.jobs.errors import GcpctlError
from orchestrator.jobs.plan import Request, plan_train
from orchestrator.results.cells import CHANGES_NOTHING
from orchestrator.results.comparison import Scalar
from workloads.config.errors import ConfigError
from workloads.config.validate import flatten

_PLACES = ("data.path", "init.weights")
"""Where things lie; a recipe leaves them to the person who submits."""
_FOLDERS = ("image_folder", "packed")
"""Two ways to keep the images of one folder."""


def is_published(recipe: str, config: Mapping[str, Scalar]) -> bool:
    """Whether a resolved config is that of a recipe, but for seed, places and bookkeeping.

    An ablation changes the recipe, and the published number is not what it should come to. A
    recipe that is not here, or has changed since, vouches for nothing.
    """
    published = _config_of(recipe)
    if published is None:
        return False
    as_it_stands = _what_counts(published)
    return all(
        key in as_it_stands and as_it_stands[key] == value
        for key, value in _what_counts(config).items()
    )


def _what_counts(config: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return a config without places and bookkeeping; of a folder of images, that it is one."""
    counts = {k: v for k, v in config.items() if k not in (*CHANGES_NOTHING, *_PLACES)}
    if config.get("data.name") not in _FOLDERS:
        return counts
    return {k: v for k, v in counts.items() if not k.startswith("data.")} | {"data.name": "folder"}


@lru_cache(maxsize=256)
def _config_of(recipe: str) -> dict[str, Scalar] | None:
    try:
        return flatten(plan_train(recipe, (), Request(to_be_given=True)).config)
    except (GcpctlError, ConfigError):
        return None
