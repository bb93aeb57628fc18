"""Recipes: named, complete, reproducible choices, as YAML files that build on each other.

A file may say `extends: NAME`, any number of files deep: what it says itself is laid over what
its base says. Bases in `workloads/recipes/base` are only there to be built on. `network: NAME`
stands for the `model:` of a named network; a `model:` beside it is laid over that.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import workloads.recipes
from orchestrator.jobs.errors import NotFoundError
from workloads.config.document import load_document
from workloads.config.errors import ConfigError, Problem, did_you_mean

KINDS = ("train", "ablation")
"""Kinds of recipes there are, each a folder of `workloads/recipes`."""
BASE = "base"
"""The folder of those that are built on, but neither listed nor submitted."""


@dataclass(frozen=True)
class Layer:
    """One recipe file as written.

    Attributes:
        text: All that it says, `extends` among it.
    """

    path: Path
    text: dict[str, Any]

    @property
    def base(self) -> Any:
        """What it builds on, by name or file; None for nothing."""
        return self.text.get("extends")

    @property
    def document(self) -> dict[str, Any]:
        """What it says itself."""
        return {key: value for key, value in self.text.items() if key != "extends"}

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


@dataclass(frozen=True)
class Recipe:
    """A recipe with all that it builds on.

    Attributes:
        layers: The file itself, then its base, the base's base and so on.
    """

    name: str
    kind: str
    layers: tuple[Layer, ...]

    @property
    def path(self) -> Path:
        """The recipe's own file."""
        return self.layers[0].path

    @property
    def source(self) -> str:
        """How messages name it."""
        return str(self.path)

    @cached_property
    def heading(self) -> dict[str, Any]:
        """The layers merged, `network` left as it is; enough to list the recipe."""
        merged: dict[str, Any] = {}
        for layer in reversed(self.layers):
            merged.pop("published", None)  # what a base reproduces, a change of it does not
            merged = merge(merged, layer.document)
        return merged

    @cached_property
    def document(self) -> dict[str, Any]:
        """The layers merged, each with the model of its `network`.

        Raises:
            ConfigError: There is no such network.
        """
        merged: dict[str, Any] = {}
        for layer in reversed(self.layers):
            merged.pop("published", None)
            merged = merge(merged, with_model_of_network(layer.document, str(layer.path)))
        return merged


def recipe_files(kind: str | None = None) -> dict[str, tuple[str, Path]]:
    """Return name -> (kind, file) of the recipes that come with gcpctl.

    Args:
        kind: One of `KINDS`, or `BASE`; None for all kinds without the bases.
    """
    return {name: found for k in ((kind,) if kind else KINDS) for name, found in _files(k)}


@cache
def _files(kind: str) -> list[tuple[str, tuple[str, Path]]]:
    root = Path(next(iter(workloads.recipes.__path__)))
    return [(file.stem, (kind, file)) for file in sorted((root / kind).glob("*.yaml"))]


def load_recipe(name: str, kind: str) -> Recipe:
    """Load a recipe by its name, or by the path of a YAML file.

    Raises:
        NotFoundError: No such recipe or file; names the closest.
        ConfigError: The file, or one that it builds on, cannot be used as a recipe.
    """
    path = Path(os.path.expanduser(name)) if _is_path(name) else _find(name, kind)
    layers = [Layer(path, _read(path))]
    while (base := layers[-1].base) is not None:
        found = _base_file(base, layers[-1].path, kind)
        if any(_same(found, layer.path) for layer in layers):
            chain = " -> ".join([*(layer.name for layer in layers), found.stem])
            problem = Problem("extends", f"goes round in a circle: {chain}")
            raise ConfigError(str(layers[-1].path), [problem])
        layers.append(Layer(found, _read_base(found)))
    return Recipe(name=path.stem, kind=kind, layers=tuple(layers))


def kind_of(name: str) -> str:
    """Return the kind of a recipe; that of a file is told by what stands in it.

    Raises:
        NotFoundError: No such recipe or file.
        ConfigError: The file cannot be read.
    """
    if not _is_path(name):
        found, _ = recipe_files().get(name, ("train", None))
        return found
    text = _read(Path(os.path.expanduser(name)))
    is_study = "factors" in text or str(text.get("extends")) in recipe_files("ablation")
    return "ablation" if is_study else "train"


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it, mapping by mapping.

    A mapping whose `name` changes is replaced whole: the fields of the old choice mean nothing
    to the new one. A bare name is short for `{name: ...}`.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, str) and isinstance(value, Mapping):
            old = {"name": old}
        if isinstance(old, Mapping) and isinstance(value, str) and value == old.get("name"):
            merged[key] = old
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_choice = value.get("name", old.get("name")) == old.get("name")
            merged[key] = merge(old, value) if same_choice else value
    return merged


def with_model_of_network(document: dict[str, Any], source: str) -> dict[str, Any]:
    """Return `document` with `model` filled up from the named network in `network`.

    Raises:
        ConfigError: There is no such network.
    """
    name = document.get("network")
    if name is None:
        return document
    from workloads.config.zoo import load_zoo

    zoo = load_zoo()
    if not isinstance(name, str) or name not in zoo:
        hint = did_you_mean(str(name), zoo) or "see them with: gcpctl model list"
        raise ConfigError(source, [Problem("network", f"there is no network {name!r}", hint)])
    model = zoo[name].model.model_dump(mode="json")
    given = document.get("model", {})
    return {**document, "model": merge(model, given) if isinstance(given, Mapping) else given}


def _is_path(name: str) -> bool:
    return "/" in name or name.endswith((".yaml", ".yml"))


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _find(name: str, kind: str) -> Path:
    known = recipe_files()
    if name in known:
        found, path = known[name]
        if found == kind:
            return path
        raise NotFoundError(
            f"{name!r} is a recipe for {found!r}, not {kind!r}",
            f"try: gcpctl submit {found} {name}",
        )
    if name in recipe_files(BASE):
        raise NotFoundError(
            f"{name!r} is what recipes build on, and not complete by itself",
            f"those that do, with others: gcpctl recipes list {name.partition('_')[0]}",
        )
    hint = did_you_mean(name, known) or "see them with: gcpctl recipes list"
    raise NotFoundError(f"there is no recipe {name!r}", hint)


def _base_file(base: Any, path: Path, kind: str) -> Path:
    """Return the file that `extends: base` in the file `path` names."""
    if isinstance(base, str) and _is_path(base):
        return path.parent / Path(os.path.expanduser(base))
    known = recipe_files(BASE) | recipe_files(kind)
    if not isinstance(base, str) or base not in known:
        hint = did_you_mean(str(base), known) or f"bases: {', '.join(recipe_files(BASE))}"
        raise ConfigError(str(path), [Problem("extends", f"there is no recipe {base!r}", hint)])
    return known[base][1]


@cache
def _read_base(path: Path) -> dict[str, Any]:
    """Read a file that many others may build on."""
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as exc:
        raise NotFoundError(f"there is no recipe file {path}") from exc
    except IsADirectoryError as exc:
        raise NotFoundError(f"{path} is a folder, not a recipe file") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(str(path), [Problem("", "not a text file in UTF-8")]) from exc
    except OSError as exc:
        raise NotFoundError(f"cannot read the recipe {path}: {exc.strerror}") from exc
    return load_document(text, str(path))
