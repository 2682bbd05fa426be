"""One prompt and what is known about it: what a line of a JSON lines file, or a row of a table, says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from datasetdm.errors import ConfigError

TEXT_FIELDS = ("prompt", "text", "caption", "prompts")
"""Names of the field that holds the prompt, the first that is there."""

NEGATIVE_FIELDS = ("negative", "negative_prompt")
"""Likewise of the negative prompt; the second is diffusers' name."""


def _one_line(value: Any) -> Any:
    """Every stretch of white space, Unicode's line separators included, as one space. Raises ValueError for lone surrogates."""
    if not isinstance(value, str):
        return value
    value.encode()
    return " ".join(value.split())


def _several(value: Any) -> Any:
    """A list as a tuple; texts in it stripped."""
    return tuple(map(_one_line, value)) if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    """A number that a table or a data frame holds as text or as a float."""
    if isinstance(value, str) and value.strip().removesuffix(".0").isdecimal() and len(value) < 30:
        return int(value.strip().removesuffix(".0"))
    return int(value) if isinstance(value, float) and value.is_integer() else value


Line = Annotated[str, BeforeValidator(_one_line), StringConstraints(min_length=1)]
"""A text of one line that says something."""

Count = Annotated[int, BeforeValidator(_whole), Field(ge=0)]


class PromptRow(BaseModel):
    """One prompt. What is not known is None; unknown fields of a file are ignored.

    Args:
        prompt: the text.
        labels: the labels that the image shall show, by name; None leaves it to the words of the text.
        seed: of the image's noise; None lets the generator choose.
        negative: what the image shall not show, for models with classifier-free guidance.
        origin: who wrote it.
        counts: number of objects per label that the image shall show.
        place: where it shall play.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    prompt: Line
    labels: Annotated[tuple[Line, ...], BeforeValidator(_several)] | None = None
    seed: Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**64)] | None = None
    negative: Annotated[str, BeforeValidator(_one_line)] | None = None
    origin: Literal["user", "grammar", "language-model"] = "user"
    counts: dict[Line, Count] | None = None
    place: Line | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_any_name(cls, value: Any) -> Any:
        """Fields in the names that prompt sets and other tools give them, in any case."""
        if isinstance(value, str):
            return {"prompt": value}
        if not isinstance(value, Mapping):
            return value
        found = {str(k).strip().lower(): v for k, v in value.items()}
        for field, names in (("prompt", TEXT_FIELDS), ("negative", NEGATIVE_FIELDS)):
            name = next((n for n in names if found.get(n) is not None), None)
            if name is not None:
                found[field] = found[name]
        return found

    def to_json(self) -> str:
        """The row as a line of a JSON lines file, without what is not known."""
        values = self.model_dump(exclude_none=True, exclude_defaults=True)
        return json.dumps(values, ensure_ascii=False)

    def details(self) -> dict[str, Any]:
        """What the image is meant to be, beside text, labels and seed, JSON-ready."""
        return self.model_dump(include={"counts", "place"}, exclude_none=True)


def parse_row(value: Any, where: str) -> PromptRow:
    """A row of a file. Raises ConfigError for one that is no prompt, with its place and the first field that is wrong."""
    try:
        return PromptRow.model_validate(value)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        if field in ("", "prompt"):
            problem, expected = (
                f"{str(value)[:60]!r} is no prompt",
                f"a text, or an object with a text in {TEXT_FIELDS[0]}",
            )
        else:
            problem = f"{field} {str(first['input'])[:60]!r}: {first['msg']}"
            expected = EXPECTED.get(field.split(".")[0], "")
        raise ConfigError(problem, where=where, expected=expected or None) from e


EXPECTED = {
    "labels": "a list of label names",
    "seed": "a whole number in 0..2**64 - 1; leave it out for one of the generator's own",
    "negative": "a text",
    "origin": "user, grammar or language-model",
    "counts": "an object of label names and whole numbers",
    "place": "a text",
}
"""By field, what it holds."""
