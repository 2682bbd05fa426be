"""Settings as pydantic models: one source for Python, recipes, `datasetdm.toml`, the environment and the command line.

A field's description is the command line's help, its default is what the help shows; pydantic's findings become one
`ConfigError` that names the nearest known setting.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationError

from datasetdm.errors import ConfigError
from datasetdm.io.remote import Place, as_place

Model = TypeVar("Model", bound=BaseModel)


def split_commas(value: Any) -> Any:
    """`a,b`, `["a", "b"]` and `["a,b"]` as ("a", "b"); what is no text stays as it is."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    if isinstance(value, Iterable):
        return tuple(word for v in value for word in (split_commas(v) if isinstance(v, str) else (v,)))
    return value


def split_pairs(value: Any) -> Any:
    """`cat=animal,sky=` as {"cat": "animal", "sky": None}; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    pairs = [p.partition("=") for p in value.split(",")]
    if not all(equals and name.strip() for name, equals, _ in pairs):
        raise ValueError("expected name=value,name=value")
    if len({name.strip() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("a name is there twice")
    return {name.strip(): text.strip() or None for name, _, text in pairs}


def _one(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


_SEVERAL = Parameter(consume_multiple=True, negative=())
_WORD = Parameter(accepts_keys=False, n_tokens=1, converter=lambda _, tokens: tokens[0].value, negative=())

Names = Annotated[tuple[str, ...], BeforeValidator(split_commas), _SEVERAL]
"""Several names, also as one text with commas between them."""

Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(split_commas), _SEVERAL]
"""Several whole numbers, likewise."""

Texts = Annotated[tuple[str, ...], BeforeValidator(_one), _SEVERAL]
"""Several texts, in which commas mean nothing."""

Files = Annotated[tuple[Path, ...], BeforeValidator(_one), _SEVERAL]
"""Several files."""

AnyPlace = Annotated[Place, PlainValidator(as_place), PlainSerializer(str)]
"""A folder, or a URL."""

NewNames = Annotated[dict[str, str | None], BeforeValidator(split_pairs), _WORD]
"""Name -> new name or None, also as `cat=animal,sky=`."""

Fractions = Annotated[dict[str, float], BeforeValidator(split_pairs), _WORD]
"""Name -> number, also as `train=0.8,val=0.2`."""


def validated(model: type[Model], /, **values: Any) -> Model:
    """`model(**values)`. Raises ConfigError for the first setting that is unknown or impossible."""
    try:
        return model(**values)
    except ValidationError as e:
        first = e.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, model.model_fields, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known settings: {', '.join(model.model_fields)}"
            raise ConfigError(
                f"unknown setting {name!r}", expected=f"a setting of {model.__name__}", remedy=remedy
            ) from e
        raise ConfigError(f"{name}: {first['msg']}", where=f"{name} = {reprlib.repr(first['input'])}") from e
