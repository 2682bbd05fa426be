"""Prompts: from files and words, or composed offline from a small grammar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasetdm.errors import ConfigError
from datasetdm.prompts.files import SUFFIXES, PromptRow, iter_prompt_file
from datasetdm.records import BACKGROUND, Labels


def read_prompts(given: Sequence[str]) -> list[str]:
    """The texts of `iter_prompts`, all at once. Raises ConfigError if there is none."""
    return [row.text for row in iter_prompts(given)]


def iter_prompts(given: Sequence[str]) -> Iterator[PromptRow]:
    """Prompts from the command line, one at a time: one existing file (see `files`), or the prompts themselves.

    Raises:
        ConfigError: no such file, one that cannot be read, or no prompt at all.
    """
    path = Path(given[0]) if len(given) == 1 else None
    if path is not None and _is_file(given[0]):
        empty = True
        for row in iter_prompt_file(path):
            yield row
            empty = False
        if empty:
            raise ConfigError("the prompt file holds no prompt", where=path, expected="one prompt per line")
        return
    if path is not None and given[0].endswith(SUFFIXES) and " " not in given[0]:
        raise ConfigError("there is no such prompt file", where=given[0], expected="a file, or prompts as arguments")
    prompts = [g.strip() for g in given if g.strip()]
    if not prompts:
        raise ConfigError("there is no prompt", expected="--prompts FILE or --prompts 'a photo of a dog' ...")
    yield from map(PromptRow, prompts)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path: a prompt
        return False


def check_labels(prompts: Sequence[str], labels: Labels) -> list[str]:
    """Those of the prompts that name none of the labels: their images show nothing that the decoder was asked for."""
    return [p for p in prompts if not labels.named_in(p)]


def describe(labels: Sequence[str]) -> str:
    """A caption for an image that has none, from the labels in it."""
    named = [f"a {n}" for n in labels if n != BACKGROUND] or ["a scene"]
    return "a photo of " + " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
