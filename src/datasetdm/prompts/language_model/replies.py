"""What a language model answered, read leniently and checked strictly: nothing of a reply is trusted.

A reply is JSON in the form that was asked for, or hides it in a fence, in an explanation, or behind its thoughts; it may be cut
off. Every single text that is usable is used, every other one is counted with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json import JSONDecoder
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import from_json

MAX_CHARACTERS = 600
"""Of one text: far above what text encoders read."""

NOT_JSON, CUT_OFF, REFUSED, EMPTY = "not JSON", "cut off", "refused", "empty"
NOT_PLAIN, TOO_LONG, NO_LABEL = "not plain text", "too long for the text encoder", "names no label"
NO_COMPLETION, HOLDS_KEY, MISSING, DUPLICATE = "no chat completion", "holds the key", "left out", "duplicate"
"""Why a reply, or one text of it, is not used."""

Check = Callable[[int, str], str | None]
"""(index of the item, text) -> why it is not usable, or None."""


class Item(BaseModel):
    """The text for one numbered item."""

    model_config = ConfigDict(extra="forbid")

    number: int
    text: str


class Items(BaseModel):
    """The form of every reply."""

    model_config = ConfigDict(extra="forbid")

    items: list[Item]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(BaseModel):
    """What this software reads of a chat completion."""

    choices: list[_Choice]
    usage: _Usage | None = None


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    Args:
        key: of the request.
        texts: by index of the item (from 0 on), the usable texts.
        rejected: the others by reason.
        tokens: of the request and of the answer.
    """

    key: str
    texts: Mapping[int, str] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=Counter)
    tokens: tuple[int, int] = (0, 0)


def read_reply(
    content: str | None, wanted: int, check: Check, finish: str | None = None
) -> tuple[dict[int, str], Counter[str]]:
    """(usable texts by index, the others by reason) of a message.

    Args:
        content: what the model wrote.
        wanted: number of items that were asked for.
        check: of one text.
        finish: why the model ended, as the interface names it.
    """
    texts: dict[int, str] = {}
    rejected: Counter[str] = Counter()
    if finish == "content_filter":
        return texts, Counter({REFUSED: wanted})
    try:
        found = _items(_first_json(content or "", finish == "length"))
    except (ValueError, RecursionError):
        return texts, Counter(
            {CUT_OFF if finish == "length" else NOT_JSON if (content or "").strip() else EMPTY: wanted}
        )
    seen: set[int] = set()
    for place, value in enumerate(found[: 4 * wanted]):
        number, text = _number_and_text(value, place)
        if not 0 <= number < wanted or number in seen:
            continue
        seen.add(number)
        text = " ".join(text.split())
        if (reason := _problem(text) or check(number, text)) is None:
            texts[number] = text
        else:
            rejected[reason] += 1
    if len(seen) < wanted:
        rejected[CUT_OFF if finish == "length" else MISSING] += wanted - len(seen)
    return texts, rejected


def _problem(text: str) -> str | None:
    if not text:
        return EMPTY
    if len(text) > MAX_CHARACTERS:
        return TOO_LONG
    return None if text.isprintable() else NOT_PLAIN


def _first_json(content: str, cut: bool) -> Any:
    """The first object or list of a text; without its last, unfinished part if the text was cut off."""
    text = content.rpartition("</think>")[2]
    starts = [i for i in (text.find("{"), text.find("[")) if i >= 0]
    if not starts:
        raise ValueError("no JSON")
    text = text[min(starts) :]
    return from_json(text, allow_partial=True) if cut else JSONDecoder().raw_decode(text)[0]


def _items(value: Any) -> list[Any]:
    """The list in a reply: itself, or the first list of an object."""
    if isinstance(value, dict):
        value = next((v for v in value.values() if isinstance(v, list)), None)
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def _number_and_text(value: Any, place: int) -> tuple[int, str]:
    """(index, text) of one item; a bare text has its place in the list."""
    if isinstance(value, str):
        return place, value
    if not isinstance(value, dict):
        return place, ""
    number, text = value.get("number", place + 1), value.get("text", "")
    return (number - 1 if type(number) is int else place), text if isinstance(text, str) else ""
