"""Settings as pydantic models: one source for Python, recipes, `datasetdm.toml`, the environment and the command line.

A field's description is the command line's help, its default is what the help shows; pydantic's findings become one
`ConfigError` that names the nearest known setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, BeforeValidator, ValidationError

from datasetdm.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def split_commas(value: str | Iterable[object] | None) -> tuple[str, ...] | None:
    """`a,b`, `["a", "b"]` and `["a,b"]` as ("a", "b")."""
    if value is None:
        return None
    texts = [value] if isinstance(value, str) else [str(v) for v in value]
    return tuple(word.strip() for text in texts for word in text.split(",") if word.strip())


Names = Annotated[tuple[str, ...], BeforeValidator(split_commas), Parameter(consume_multiple=True, negative=())]
"""Several names, also as one text with commas between them."""


def validated(model: type[Model], **values: Any) -> Model:
    """`model(**values)`, or one clear error."""
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
        raise ConfigError(f"{name}: {first['msg']}", where=f"{name} = {first['input']!r}") from e
