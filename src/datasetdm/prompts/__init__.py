"""Prompts: from files and words, or composed offline from a small grammar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasetdm.errors import ConfigError
from datasetdm.records import BACKGROUND, Labels


def read_prompts(given: Sequence[str]) -> list[str]:
    """Prompts from the command line: one existing file with one prompt a line, or the prompts themselves.

    Empty lines and lines that begin with `#` are skipped.
    """
    if len(given) == 1 and _is_file(given[0]):
        path = Path(given[0])
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"the prompt file cannot be read: {e}", where=path, expected="UTF-8 text") from e
        prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not prompts:
            raise ConfigError("the prompt file holds no prompt", where=path, expected="one prompt a line")
        return prompts
    looks_like_file = len(given) == 1 and given[0].endswith((".txt", ".csv", ".json")) and " " not in given[0]
    if looks_like_file:
        raise ConfigError(
            "there is no such prompt file", where=given[0], expected="a text file, or prompts as arguments"
        )
    prompts = [g.strip() for g in given if g.strip()]
    if not prompts:
        raise ConfigError("there is no prompt", expected="--prompts FILE or --prompts 'a photo of a dog' ...")
    return prompts


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
