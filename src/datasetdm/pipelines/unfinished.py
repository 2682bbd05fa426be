"""The folder of a fit or a training that takes long: empty, unfinished by the same recipe, or an error.

What it depends on lies in `OUT/work/recipe.json` until it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasetdm.errors import OutputError
from datasetdm.io.files import occupied, parse_json, remove_leftovers, write_json, writing

WORK = "work"
"""The folder of checkpoints and caches."""
MARK = "recipe.json"
"""The file in it that says to which fit or training it belongs."""
SPILLED = ".samples.arrow"
"""Suffix of the files in it that hold a training's samples, which are read before it is known to whom the folder belongs."""


def require_folder(out: Path) -> None:
    """Raises OutputError for a place that is a file."""
    if out.exists() and not out.is_dir():
        raise OutputError("the output place is a file", where=out, expected="a folder", remedy="choose another --out")


def require_free(out: Path) -> None:
    """Raises OutputError for a folder that holds anything but unfinished work, or samples that were read for some."""
    if occupied(out) and not (out / WORK / MARK).exists() and not _only_read(out):
        raise OutputError(
            "the output folder is not empty", where=out, expected="a new folder", remedy="choose another --out"
        )


def claim(out: Path, recipe: Mapping[str, Any], what: str) -> Path:
    """The work folder of a recipe below `out`, with its mark. The caller holds the lock.

    Args:
        recipe: all that the result depends on, JSON-ready.
        what: fit or training.

    Raises:
        OutputError: the folder is that of another recipe, or holds anything else.
    """
    work = out / WORK
    mark = work / MARK
    with writing(out):
        for folder in (out, work):
            remove_leftovers(folder)
        require_free(out)
        if mark.exists() and _read(mark, what) != recipe:
            raise OutputError(
                f"the output folder belongs to another, unfinished {what}",
                where=out,
                expected="the same data and settings",
                remedy="choose another --out, or delete it",
            )
        write_json(mark, recipe)
    return work


def _only_read(out: Path) -> bool:
    """Whether a folder holds nothing but samples that a training read, beside hidden files."""
    work = out / WORK
    if not work.is_dir() or any(p != work and not p.name.startswith(".") for p in out.iterdir()):
        return False
    return all(p.name.endswith(SPILLED) for p in work.iterdir())


def _read(mark: Path, what: str) -> Any:
    try:
        return parse_json(mark.read_bytes())
    except (OSError, ValueError) as e:
        raise OutputError(
            f"the mark of an unfinished {what} cannot be read: {e}",
            where=mark,
            remedy="choose another --out, or delete it",
        ) from e
