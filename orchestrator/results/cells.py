"""Which trainings belong together: those that differ in their seeds alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from orchestrator.results.comparison import Scalar, Training

SEED = "seed"
CHANGES_NOTHING = (
    "seed",
    "data.loader_workers",
    "data.verify",
    "data.check_images",
    "log_every_steps",
    "checkpoint.every_steps",
    "checkpoint.every_epochs",
    "checkpoint.keep",
    "checkpoint.keep_best",
    "checkpoint.asynchronous",
)
"""Keys of the config that leave every number of a training as it is, but for the seed: every draw
is keyed by seed, epoch and image, and checkpoints are only written."""
_TELL_APART = ("commit", "workers", "GPUs per worker")
"""Facts that make two trainings of one config and seed two things to compare."""


@dataclass(frozen=True)
class Group:
    """The trainings of a cell.

    Attributes:
        label: The cell's name in its study; empty outside of one.
        told_by: Facts that tell it from another group of the same config.
    """

    label: str
    trainings: tuple[Training, ...]
    told_by: Mapping[str, Scalar]

    @property
    def config(self) -> Mapping[str, Scalar]:
        """The config that they share, seeds aside."""
        return self.trainings[0].config


def grouped(trainings: Iterable[Training]) -> list[Group]:
    """Return trainings in groups of one config, in the order of their first members.

    Trainings of one config that hold the same seed belong to different cells of a study, or ran
    on other code or another number of workers: they stay apart. Otherwise those differences are
    for warnings.
    """
    by_config: dict[str, dict[str, list[Training]]] = {}
    for training in trainings:
        parts = by_config.setdefault(_config_key(training), {})
        parts.setdefault(_part_key(training), []).append(training)
    groups: list[Group] = []
    for parts in by_config.values():
        groups += _joined(list(parts.values()))
    order = {training.run_id: index for index, training in enumerate(trainings)}
    return sorted(groups, key=lambda group: min(order[t.run_id] for t in group.trainings))


def _config_key(training: Training) -> str:
    kept = {k: v for k, v in training.config.items() if k not in CHANGES_NOTHING}
    return json.dumps(kept, sort_keys=True)


def _part_key(training: Training) -> str:
    facts = _facts(training) if not training.cell else {}
    return json.dumps([training.cell, facts], sort_keys=True)


def _facts(training: Training) -> dict[str, Scalar]:
    return {key: training.facts[key] for key in _TELL_APART if key in training.facts}


def _joined(parts: list[list[Training]]) -> list[Group]:
    """Return the parts of one config as one group, unless two of them hold the same seed."""
    seeds = [{t.seed for t in part} for part in parts]
    together = sum(map(len, seeds)) == len(set().union(*seeds))
    if together or len(parts) == 1:
        members = tuple(t for part in parts for t in part)
        labels = [t.cell for t in members if t.cell]
        return [Group(labels[0] if labels else "", members, {})]
    facts = [_facts(part[0]) for part in parts]
    unlike = [key for key in _TELL_APART if len({json.dumps(f.get(key)) for f in facts}) > 1]
    return [
        Group(part[0].cell, tuple(part), {k: fact[k] for k in unlike if k in fact})
        for part, fact in zip(parts, facts, strict=True)
    ]


def differing_keys(groups: Sequence[Group], *, all_keys: bool) -> tuple[str, ...]:
    """Return the keys of the config that are not equal in all groups, in the config's order.

    What follows from another choice is left out: `num_iters` where the poolings differ and each
    pooling has one value of it (or none).

    Args:
        all_keys: Keep what follows from a choice, and what changes no number.
    """
    order = list(dict.fromkeys(key for group in groups for key in group.config))
    nothing = {SEED} if all_keys else set(CHANGES_NOTHING)
    found = [key for key in order if key not in nothing and _differs(key, groups)]
    if all_keys:
        return tuple(found)
    return tuple(key for key in found if not _follows(key, found, groups))


_MISSING = "\0missing"


def _value(group: Group, key: str) -> str:
    return json.dumps(group.config[key]) if key in group.config else _MISSING


def _differs(key: str, groups: Iterable[Group]) -> bool:
    return len({_value(group, key) for group in groups}) > 1


def _follows(key: str, found: Sequence[str], groups: Sequence[Group]) -> bool:
    """Whether the name of the choice that a key belongs to says the key's value."""
    for choice in found:
        section = choice.removesuffix("name")
        if not choice.endswith(".name") or key == choice or not key.startswith(section):
            continue
        said: dict[str, set[str]] = {}
        for group in groups:
            said.setdefault(_value(group, choice), set()).add(_value(group, key))
        if all(len(values) == 1 for values in said.values()):
            return True
    return False


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the shortest endings of keys that tell them apart; a choice goes without `.name`."""
    paths = {key: key.removesuffix(".name").split(".") for key in keys}
    names = {}
    for key, path in paths.items():
        others = [other for k, other in paths.items() if k != key]
        length = 1
        while length < len(path) and any(o[-length:] == path[-length:] for o in others):
            length += 1
        names[key] = ".".join(path[-length:])
    return names


def names_of(groups: Sequence[Group], keys: Sequence[str]) -> list[str]:
    """Return a name for each group: its study's, else what differs, else its recipe or job."""
    short = short_names(keys)
    names = []
    labels = [group.label for group in groups]
    for group in groups:
        if group.label and labels.count(group.label) == 1:
            names.append(group.label)
            continue
        told = {short[k]: group.config[k] for k in keys if k in group.config} | {
            k: v[:7] if k == "commit" and isinstance(v, str) else v
            for k, v in group.told_by.items()
        }
        text = ",".join(f"{key}={value_text(value)}" for key, value in told.items())
        if not text or len(text) > _LONGEST_NAME:
            text = _fallback(group)
        names.append(text)
    return _made_unique(names, groups)


_LONGEST_NAME = 48


def _fallback(group: Group) -> str:
    first = group.trainings[0]
    return first.job_id if len(group.trainings) == 1 else first.recipe


def _made_unique(names: list[str], groups: Sequence[Group]) -> list[str]:
    """Return names of which none occurs twice: the first job of the group is added."""
    return [
        f"{name} ({group.trainings[0].job_id})" if names.count(name) > 1 else name
        for name, group in zip(names, groups, strict=True)
    ]


def shortened(names: Sequence[str], longest: int) -> list[str]:
    """Return names with a part left out where they are long, of which no two are the same.

    Args:
        names: All different.
        longest: Characters that a name may have.
    """
    balanced = longest - longest // 2 - 1
    start = len(common_start([name for name in names if len(name) > longest]))
    without_start = [f"…{name[start:]}" if len(name) > longest else name for name in names]
    for texts in (names, without_start):
        for ahead in sorted(range(longest), key=lambda length: abs(length - balanced)):
            found = [_without_middle(text, ahead, longest) for text in texts]
            if len(set(found)) == len(names):
                return found
    # They differ in several places: only a number is sure to tell them apart.
    return [
        name if len(name) <= longest else f"{name[: longest - 5]}…#{number}"
        for number, name in enumerate(names, start=1)
    ]


def common_start(names: Sequence[str]) -> str:
    """Return what all names begin with: what the first and the last in their order share."""
    pairs = zip(min(names, default=""), max(names, default=""), strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _without_middle(name: str, ahead: int, longest: int) -> str:
    if len(name) <= longest:
        return name
    return f"{name[:ahead]}…{name[len(name) - (longest - 1 - ahead) :]}"


def value_text(value: Scalar) -> str:
    """Return a value of a config as a recipe has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
