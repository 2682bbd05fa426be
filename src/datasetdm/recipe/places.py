"""Output places, checked before anything is loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from datasetdm.errors import OutputError
from datasetdm.io.files import distant, occupied
from datasetdm.io.remote import Place
from datasetdm.store.store import Store

WORK = "work"
"""Where an unfinished fit keeps its features and its checkpoint, below its output folder."""
CONFIG = "config.json"
"""What a finished decoder's folder holds."""
FIGURES, FIGURES_PAGE, HITS = "figures.json", "figures.md", "hits.html"
"""The files that an evaluation leaves in its folder: all figures, the same to read, and a page of hits and misses."""
STORE = "dataset.json"
"""What a store's folder holds."""


def require_writable(out: Place) -> None:
    """Raises OutputError if `out` cannot be written: its nearest folder that exists is none, or is closed to us. What a storage
    permits shows the first request."""
    if distant(out):
        return
    out = Path(str(out))
    if re.match(r"\w+:/", str(out)):
        raise OutputError(
            "this output must lie on this machine", where=out, expected="a folder; only stores may lie behind a URL"
        )
    nearest = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    if nearest != out.absolute() and not nearest.is_dir():
        raise OutputError("a part of the output place is a file", where=nearest, expected="a folder")
    if not os.access(nearest, os.W_OK):
        raise OutputError("the output place cannot be written", where=nearest, remedy="choose another --out")


def require_folder(out: Place, begun: str | None = None) -> None:
    """Raises OutputError if `out` is a file or cannot be written, or holds anything but unfinished work.

    Args:
        begun: what an unfinished or growing output holds, for instance `dataset.json`.
    """
    require_writable(out)
    if out.exists() and not out.is_dir():
        raise OutputError("the output place is a file", where=out, expected="a folder", remedy="choose another --out")
    if occupied(out) and not (begun and (out / begun).exists()):
        raise OutputError(
            "the output folder is not empty",
            where=out,
            expected="a new folder" if begun is None else "a new folder, or one that the same command began",
            remedy="choose another --out, or delete it",
        )


def require_growth(store: Place, count: int) -> None:
    """Raises OutputError if the store that is there holds more samples than are asked for."""
    if (store / STORE).exists() and (held := len(Store(store))) > count:
        raise OutputError(
            f"the store holds {held} samples, more than the count of {count}",
            where=store,
            expected=f"a count of at least {held}",
            remedy="choose another --out; export and view take a part of it by --limit",
        )


def require_file(out: Path) -> None:
    """Raises OutputError if `out` is a folder or cannot be written."""
    require_writable(out)
    if out.is_dir():
        raise OutputError(
            f"{out} is a folder", expected="a file, for instance page.html", remedy="choose another --out"
        )
