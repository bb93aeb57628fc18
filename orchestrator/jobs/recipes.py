"""Recipes: named, complete, reproducible choices, as YAML files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import workloads.recipes
from orchestrator.jobs.errors import NotFoundError
from workloads.config.document import load_document
from workloads.config.errors import ConfigError, Problem, did_you_mean

KINDS = ("train",)
"""Kinds of recipes there are, each a folder of `workloads/recipes`."""


@dataclass(frozen=True)
class Recipe:
    """A recipe file as written; its base, if it has one, is already merged in."""

    name: str
    kind: str
    path: Path
    document: dict[str, Any]

    @property
    def source(self) -> str:
        """How messages name it."""
        return str(self.path)


def recipe_files(kind: str | None = None) -> dict[str, tuple[str, Path]]:
    """Return name -> (kind, file) of the recipes that come with gcpctl."""
    root = Path(next(iter(workloads.recipes.__path__)))
    kinds = (kind,) if kind else KINDS
    return {file.stem: (k, file) for k in kinds for file in sorted((root / k).glob("*.yaml"))}


def load_recipe(name: str, kind: str) -> Recipe:
    """Load a recipe by its name, or by the path of a YAML file.

    Raises:
        NotFoundError: No such recipe or file; names the closest.
        ConfigError: The file cannot be used as a recipe.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
    else:
        known = recipe_files()
        if name not in known:
            hint = did_you_mean(name, known) or "see them with: gcpctl recipes list"
            raise NotFoundError(f"there is no recipe {name!r}", hint)
        found, path = known[name]
        if found != kind:
            raise NotFoundError(
                f"{name!r} is a recipe for {found!r}, not {kind!r}",
                f"try: gcpctl submit {found} {name}",
            )
    document = _read(path)
    base = document.pop("extends", None)
    if base is not None:
        document = merge(_read_base(base, path, kind), document)
    return Recipe(name=path.stem, kind=kind, path=path, document=document)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` laid over it, mapping by mapping.

    A mapping whose `name` changes is replaced whole: the fields of the old choice mean nothing
    to the new one.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_choice = value.get("name", old.get("name")) == old.get("name")
            merged[key] = merge(old, value) if same_choice else value
    return merged


def _read_base(base: Any, path: Path, kind: str) -> dict[str, Any]:
    known = recipe_files(kind)
    if not isinstance(base, str) or base not in known:
        hint = did_you_mean(str(base), known) or f"known: {', '.join(known)}"
        raise ConfigError(str(path), [Problem("extends", f"there is no recipe {base!r}", hint)])
    document = _read(known[base][1])
    if "extends" in document:
        raise ConfigError(
            str(path),
            [Problem("extends", f"{base!r} extends another recipe; one level is allowed")],
        )
    return document


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
