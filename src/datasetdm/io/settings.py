"""Checking settings: pydantic's findings as one `ConfigError` that names the nearest known setting."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from datasetdm.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


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
