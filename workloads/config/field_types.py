"""What the type of a config's field says: its choices, its class, its items, its bounds."""

import types
import typing
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


@dataclass(frozen=True)
class Place:
    """Where in a config something stands.

    Attributes:
        path: As a person writes it: `model.head.pooling.name`, `progressive[0].size`.
        owner: The class that has the last key; None below something that is no config.
        annotation: The type of what stands there; None if there is no such field.
        rules: Bounds on it.
        choices: The classes that stand there by `name`; empty if it is no choice.
    """

    path: str = ""
    owner: type[BaseModel] | None = None
    annotation: Any = None
    rules: tuple[Any, ...] = ()
    choices: dict[str, type[BaseModel]] | None = None

    @property
    def takes_null(self) -> bool:
        """Whether null may stand there."""
        return type(None) in members(self.annotation)

    def bounds(self) -> str:
        """Return `>= 1 and < 10`."""
        found = [
            f"{sign} {_number(getattr(rule, name))}"
            for name, sign in _BOUNDS
            for rule in self.rules
            if getattr(rule, name, None) is not None
        ]
        return " and ".join(found) + (" or null" if self.takes_null else "")

    def literals(self) -> list[Any]:
        """Return the values that may stand there, where they can be listed."""
        return [value for m in members(self.annotation) for value in typing.get_args(m)]


def _number(bound: float) -> str:
    """Return a bound as a person writes it; a large whole number to its last digit."""
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def choices(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return the config classes that a field chooses between by `name`; empty if it does not."""
    if field.discriminator != "name":
        return {}
    chosen: dict[str, type[BaseModel]] = {}
    for member in members(field.annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            for name in typing.get_args(member.model_fields["name"].annotation):
                chosen[name] = member
    return chosen


def config_class(annotation: Any) -> type[BaseModel] | None:
    """Return the config class in a type, `X` or `X | None`."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def item_of(annotation: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """Return type and rules of a list's items, `tuple[Annotated[int, Field()], ...]`."""
    for member in members(annotation):
        if typing.get_origin(member) is tuple:
            item = typing.get_args(member)[0]
            if typing.get_origin(item) is not typing.Annotated:
                return item, ()
            infos = item.__metadata__
            return item.__origin__, tuple(rule for info in infos for rule in info.metadata)
    return None


def locate(cls: type[BaseModel], location: tuple[Any, ...]) -> Place:
    """Follow pydantic's location, which names the choices on its way, through the classes."""
    place = Place(owner=cls)
    at: type[BaseModel] | None = cls
    for step in location:
        if place.choices and step in place.choices:
            at = place.choices[step]
            place = Place(place.path, place.owner, place.annotation, place.rules)
        elif isinstance(step, int):
            item = item_of(place.annotation)
            annotation, rules = item if item is not None else (None, ())
            place = Place(f"{place.path}[{step}]", place.owner, annotation, rules)
            at = config_class(annotation)
        else:
            path = f"{place.path}.{step}" if place.path else str(step)
            field = at.model_fields.get(step) if at is not None else None
            if field is None:
                place, at = Place(path, owner=at), None
                continue
            place = Place(path, at, field.annotation, tuple(field.metadata), choices(field))
            at = config_class(field.annotation)
    return place
