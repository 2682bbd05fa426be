"""Prompts: from files and words, or composed offline from a small grammar."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from datasetdm.errors import ConfigError
from datasetdm.prompts.files import SUFFIXES, OnRead, PromptFile
from datasetdm.prompts.rows import PromptRow
from datasetdm.records import BACKGROUND, Labels
from datasetdm.records.checks import require_text

__all__ = [
    "PromptFile",
    "PromptList",
    "PromptRow",
    "PromptSource",
    "asked_labels",
    "describe",
    "nameless",
    "open_prompts",
]


@runtime_checkable
class PromptSource(Protocol):
    """Prompts by number, without end."""

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """The prompt of sample `index`; it depends on nothing else, and on the seed only where prompts are composed."""
        ...

    def origin(self) -> dict[str, Any]:
        """All that the rows depend on but the seed, JSON-ready."""
        ...

    @property
    def count(self) -> int | None:
        """After how many they repeat, if that is known."""
        ...


class PromptList:
    """Prompts that are used in turn. Raises ConfigError if there is none, DataError for one that UTF-8 cannot hold."""

    def __init__(self, prompts: Iterable[str]):
        self.prompts = tuple(p.strip() for p in prompts if p.strip())
        if not self.prompts:
            raise ConfigError("there is no prompt", expected="--prompts FILE or --prompts 'a photo of a dog' ...")
        require_text(self.prompts, "prompts")

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.prompts)

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """Prompt `index`, counted on from the first one after the last."""
        return PromptRow(prompt=self.prompts[index % len(self.prompts)])

    def origin(self) -> dict[str, Any]:
        """Their number and hash."""
        digest = hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()
        return {"count": len(self.prompts), "sha256": digest}


def open_prompts(given: Sequence[str], on_read: OnRead = lambda done, total: None) -> PromptFile | PromptList:
    """Prompts from the command line: one existing file (see `PromptFile`), or the prompts themselves.

    Raises:
        ConfigError: no such file, one that cannot be read, several files, or no prompt at all.
    """
    named = [text for text in given if text.lower().endswith(SUFFIXES) or _is_file(text)]
    if named and len(given) > 1:
        raise ConfigError(
            f"{named[0]!r} is not the only value of --prompts", expected="one file, or prompts", remedy="join the files"
        )
    if not named:
        if len(given) == 1 and "/" in given[0] and _is_there(given[0]):
            raise ConfigError("the prompts are no file", where=given[0], expected="a file, no folder, pipe or device")
        return PromptList(given)
    if not _is_file(given[0]):
        raise ConfigError("there is no such prompt file", where=given[0], expected="a file, or prompts as arguments")
    return PromptFile(Path(given[0]), on_read)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path: a prompt
        return False


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def asked_labels(row: PromptRow, kept: str, labels: Labels) -> tuple[str, ...]:
    """The labels that a prompt asks for, in the vocabulary's order.

    Args:
        row: its own labels come first; otherwise those that its words name.
        kept: the part of its text that the text encoders read; a label that is named after it is left out.
        labels: the vocabulary; own labels match by name or synonym, others are left out.
    """
    named = labels.named_in(kept)
    if row.labels is None:
        return named
    own = {labels.by_word.get(word.lower()) for word in row.labels}
    cut = set() if kept == row.prompt else {*labels.named_in(row.prompt)} - {*named}
    return tuple(n for n in labels.names if n in own and n not in cut)


def nameless(rows: Iterable[PromptRow], labels: Labels) -> list[str]:
    """Those of the prompts that ask for none of the labels: their images show nothing that the decoder was asked for."""
    return [r.prompt for r in rows if not asked_labels(r, r.prompt, labels)]


def describe(labels: Sequence[str]) -> str:
    """A caption for an image that has none, from the labels in it."""
    named = [f"a {n}" for n in labels if n != BACKGROUND] or ["a scene"]
    return "a photo of " + " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
