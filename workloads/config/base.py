"""The base of every config class: frozen, nothing unknown, nothing silently converted."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

STRICT = "strict"
"""Validation context of `workloads.config.validate`, where pydantic itself refuses booleans."""


class Config(BaseModel):
    """A frozen, validated piece of configuration.

    Unknown keys, NaN, infinity and booleans in the place of numbers are refused: YAML turns
    ``no`` and ``yes`` into booleans, and Python would count them as 0 and 1.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )

    moved_keys: ClassVar[Mapping[str, str]] = {}
    """Keys that stood here once, and what is written instead."""

    @classmethod
    def with_usual_values(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Return `document` with what is usual for its other values; here there is nothing."""
        return document

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and info.context != STRICT:
            for name, field in cls.model_fields.items():
                number = field.annotation in (int, float, int | None, float | None)
                if number and isinstance(value.get(name), bool):
                    raise ValueError(f"{name!r} wants a number, got {value[name]}")
        return value


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Location = Annotated[str, Field(min_length=1), AfterValidator(_refuse_blank)]
"""A path, a URI or a name; not blank."""
