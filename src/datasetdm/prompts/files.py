"""Prompt files, read one row at a time: text, JSON, JSON lines, CSV and TSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasetdm.errors import ConfigError

TEXT_FIELDS = ("prompt", "text", "caption")
"""Names of the field that holds the prompt, the first that is there."""

SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".tsv")


class PromptRow(NamedTuple):
    """One prompt of a file; labels, seed and negative prompt where the file has them."""

    text: str
    labels: tuple[str, ...] | None = None
    seed: int | None = None
    negative: str | None = None


def iter_prompt_file(path: Path) -> Iterator[PromptRow]:
    """The prompts of a file, by its suffix.

    A text file has one prompt per line (lines end at a newline only; empty ones and those that begin with `#` are skipped).
    JSON is a list, JSON lines one value per line: texts, or objects with `prompt` (or `text`, `caption`) and, if wanted,
    `labels` (a list), `seed` and `negative`. CSV and TSV have these fields as columns, labels separated by `;`.

    Raises:
        ConfigError: a file that cannot be read, or a row without a prompt, with its line.
    """
    kind = path.suffix.lower()
    try:
        with path.open(encoding="utf-8-sig", newline="" if kind in (".csv", ".tsv") else None) as file:
            if kind == ".json":
                content = json.load(file)
                if not isinstance(content, list):
                    raise _wrong(
                        path, "the file holds no list of prompts", '["a dog", ...] or [{"prompt": "a dog"}, ...]'
                    )
                yield from (_row(value, f"{path}, entry {n}") for n, value in enumerate(content, 1))
            elif kind == ".jsonl":
                lines = ((n, line) for n, line in enumerate(file, 1) if line.strip())
                yield from (_row(json.loads(line), f"{path}, line {n}") for n, line in lines)
            elif kind in (".csv", ".tsv"):
                yield from _table(csv.DictReader(file, delimiter="\t" if kind == ".tsv" else ","), path)
            else:
                lines = (line.strip() for line in file)
                yield from (PromptRow(line) for line in lines if line and not line.startswith("#"))
    except (OSError, ValueError, RecursionError, csv.Error) as e:
        raise _wrong(path, f"the prompt file cannot be read: {e}", f"UTF-8, {kind[1:] or 'text'}") from e


def _table(rows: csv.DictReader[str], path: Path) -> Iterator[PromptRow]:
    columns = rows.fieldnames or ()
    if not any(name in columns for name in TEXT_FIELDS):
        raise _wrong(
            path, f"no column holds prompts: {', '.join(columns)[:80]}", f"a column {' or '.join(TEXT_FIELDS)}"
        )
    for row in rows:
        values: dict[str, Any] = {k: v for k, v in row.items() if v}
        if "labels" in values:
            values["labels"] = [w.strip() for w in values["labels"].split(";") if w.strip()]
        yield _row(values, f"{path}, line {rows.line_num}")


def _row(value: Any, where: str) -> PromptRow:
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, Mapping):
        raise _wrong(where, f"{str(value)[:60]!r} is no prompt", "a text, or an object with a field prompt")
    text = next((value[k] for k in TEXT_FIELDS if k in value), None)
    labels, seed, negative = (value.get(k) for k in ("labels", "seed", "negative"))
    if not isinstance(text, str) or not text.strip():
        raise _wrong(where, "a row has no prompt", f"a text in {' or '.join(TEXT_FIELDS)}")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(n, str) for n in labels)):
        raise _wrong(where, f"labels are {str(labels)[:60]}", "a list of label names")
    if isinstance(seed, str) and seed.strip().isdecimal() and len(seed) < 19:
        seed = int(seed)
    if seed is not None and (type(seed) is not int or seed < 0):
        raise _wrong(where, f"the seed is {str(seed)[:60]!r}", "a whole number of at least 0")
    if negative is not None and not isinstance(negative, str):
        raise _wrong(where, f"the negative prompt is {str(negative)[:60]}", "a text")
    return PromptRow(" ".join(text.split()), None if labels is None else tuple(labels), seed, negative)


def _wrong(where: object, what: str, expected: str) -> ConfigError:
    return ConfigError(what, where=where, expected=expected)
