"""From a plain mapping to a config, or to every mistake in it at once, in the user's words."""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from workloads.config.base import STRICT
from workloads.config.errors import ConfigError, Problem, did_you_mean

T = TypeVar("T", bound=BaseModel)

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


def validate(cls: type[T], document: Mapping[str, Any], source: str) -> T:
    """Build a config of class `cls`; convert nothing silently.

    Where one of several choices stands (``model.head.pooling``), its bare name is short for
    ``{name: ...}``, and a mapping without ``name`` belongs to the default choice.

    Raises:
        ConfigError: With one problem per mistake: the path as the user wrote it, what stands
            there, what is allowed and the closest name.
    """
    expanded = {key: value for key, value in document.items() if key not in cls.model_fields}
    for name, field in cls.model_fields.items():
        if name in document:
            expanded[name] = _expand(field, document[name])
    try:
        return cls.model_validate(expanded, strict=True, context=STRICT)
    except ValidationError as error:
        problems = [_problem(cls, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(source, problems) from None


def flatten(config: BaseModel) -> dict[str, str | int | float | bool | None]:
    """Return the leaf values under dotted keys (``model.head.pooling.name``); lists as text."""
    return dict(_leaves("", config.model_dump(mode="json")))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str | int | float | bool | None]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list):
        yield prefix, json.dumps(value)
    else:
        yield prefix, value


# --- what the type of a field says ---------------------------------------------------------------


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _choices(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return the config classes that a field chooses between by `name`; empty if it does not."""
    if field.discriminator != "name":
        return {}
    chosen: dict[str, type[BaseModel]] = {}
    for member in _members(field.annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name in typing.get_args(member.model_fields["name"].annotation):
                chosen[name] = member
    return chosen


def _model(annotation: Any) -> type[BaseModel] | None:
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _expand(field: FieldInfo, value: Any) -> Any:
    """Fill in what the short forms leave out; turn lists into the tuples that fields hold."""
    if choices := _choices(field):
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and "name" not in value:
            default = getattr(field.default, "name", None)
            value = {"name": default, **value} if default is not None else value
        model = choices.get(_text(value.get("name"))) if isinstance(value, dict) else None
    else:
        model = _model(field.annotation)
    if model is not None and isinstance(value, dict):
        fields = model.model_fields
        return {k: _expand(fields[k], v) if k in fields else v for k, v in value.items()}
    origins = [typing.get_origin(member) for member in _members(field.annotation)]
    if isinstance(value, list) and tuple in origins:
        return tuple(value)
    return value


# --- what went wrong -----------------------------------------------------------------------------


def _problem(cls: type[BaseModel], detail: Any) -> Problem:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    path, owner, field = _locate(cls, detail["loc"])
    if kind == "extra_forbidden":
        return _unknown_key(cls, detail["loc"][:-1], path, owner)
    if kind == "missing":
        return Problem(path, "is required and not given", f"write {path}=...")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        names = list(_choices(field)) if field is not None else []
        listed = f"allowed: {', '.join(names)}"
        if kind == "union_tag_not_found":
            return Problem(f"{path}.name", "is required and not given", listed)
        got = _text(context.get("tag"))
        return Problem(f"{path}.name", f"got {_show(got)}", _join(did_you_mean(got, names), listed))
    if kind == "literal_error" and field is not None:
        allowed = [a for m in _members(field.annotation) for a in typing.get_args(m)]
        listed = f"allowed: {', '.join(map(str, allowed))}"
        close = did_you_mean(_text(value), map(str, allowed))
        return Problem(path, f"got {_show(value)}", _join(close, listed))
    if kind == "value_error":
        return Problem(path, str(context.get("error", detail["msg"])))
    if kind == "finite_number":
        return Problem(path, f"got {value}", "a finite number is needed")
    if kind.startswith(("greater_than", "less_than")) and field is not None:
        in_list = isinstance(detail["loc"][-1], int)
        return Problem(path, f"got {_show(value)}", f"allowed: {_range(field, in_list=in_list)}")
    if kind in ("too_short", "string_too_short") and not value:
        return Problem(path, "must not be empty")
    if kind in ("too_short", "too_long"):
        side = "at least" if kind == "too_short" else "at most"
        length = context.get("min_length", context.get("max_length"))
        return Problem(path, f"got {_show(value)}", f"expected {side} {length} items")
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected is None:
        return Problem(path, f"got {_show(value)}", detail["msg"])
    quote = "; put it in quotes" if expected == "text" and isinstance(value, int | float) else ""
    return Problem(path, f"got {_show(value)}", f"expected {expected}{quote}")


def _unknown_key(
    cls: type[BaseModel], parent_loc: tuple[Any, ...], path: str, owner: type[BaseModel] | None
) -> Problem:
    """Name the closest key, or the choice that has this key, or all keys of the level."""
    key = path.rpartition(".")[2]
    known = list(owner.model_fields) if owner is not None else []
    listed = f"allowed here: {', '.join(known)}"
    if close := did_you_mean(key, known):
        return Problem(path, "unknown key", close)
    # Below a choice, pydantic's location ends with the tag; the field is one step further up.
    _, _, field = _locate(cls, parent_loc[:-1]) if parent_loc else ("", None, None)
    for name, other in (_choices(field) if field is not None else {}).items():
        if key in other.model_fields and other is not owner:
            return Problem(path, "unknown key", f"it belongs to name: {name}; {listed}")
    return Problem(path, "unknown key", listed)


def _locate(
    cls: type[BaseModel], loc: tuple[Any, ...]
) -> tuple[str, type[BaseModel] | None, FieldInfo | None]:
    """Follow pydantic's location through the classes.

    Returns:
        The path without the tags that pydantic puts in; the class that owns its last key; the
        field it ends in, if there is one.
    """
    path = ""
    owner: type[BaseModel] | None = cls
    current: type[BaseModel] | None = cls
    field: FieldInfo | None = None
    choices: dict[str, type[BaseModel]] = {}
    for step in loc:
        if choices and step in choices:
            current, choices = choices[step], {}
            continue
        choices = {}
        if isinstance(step, int):
            path = f"{path}[{step}]"
            continue
        path = f"{path}.{step}" if path else str(step)
        owner = current
        field = current.model_fields.get(step) if current is not None else None
        current = _model(field.annotation) if field is not None else None
        choices = _choices(field) if field is not None else {}
    return path, owner, field


def _range(field: FieldInfo, *, in_list: bool) -> str:
    rules = _item_rules(field) if in_list else field.metadata
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for name, sign in _BOUNDS
        for rule in rules
        if getattr(rule, name, None) is not None
    ]
    null = " or null" if type(None) in _members(field.annotation) else ""
    return " and ".join(bounds) + null


def _item_rules(field: FieldInfo) -> list[Any]:
    """Return the rules for the items of a list, ``tuple[Annotated[int, Field()], ...]``."""
    item = typing.get_args(field.annotation)[0]
    return [rule for info in getattr(item, "__metadata__", ()) for rule in info.metadata]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _show(value)


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
