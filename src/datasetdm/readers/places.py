"""Finding and reading a format's files, so that every format says the same when one is missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from datasetdm.errors import DataError
from datasetdm.io.files import parse_json, require_regular
from datasetdm.readers.source import Item

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".gif", ".avif",
)  # fmt: skip
"""Of images, in any case."""

UNREAD = (
    ".heic",
    ".heif",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".psd",
    ".ppm",
    ".pgm",
    ".pnm",
    ".tga",
    ".hdr",
)
"""Of images that are not read: they are mentioned, since they would be missed."""

LEFTOVERS = ("__MACOSX", "@eaDir")
"""Folders that macOS and network drives leave in others."""


def with_option(path: str) -> tuple[Path, str]:
    """(PATH, OPTION) of `PATH@OPTION`; a path that is there as it stands has no option."""
    head, at, option = path.rpartition("@")
    return (Path(head), option) if at and head and not Path(path).exists() else (Path(path), "")


def inside(root: Path, name: str, where: object) -> Path:
    """The path `name` below `root`.

    Raises:
        DataError: it leads out of the folder.
    """
    if ".." in Path(name).parts or Path(name).is_absolute() or "\0" in name or not name:
        raise DataError(f"the path {name[:200]!r} leaves its folder", where=where, expected="a path inside it")
    try:
        longest = max(len(os.fsencode(part)) for part in Path(name).parts or ("",))
    except UnicodeEncodeError as e:
        raise DataError(f"the path {name[:200]!r} cannot be a file's", where=where, expected="text") from e
    if longest > 255 or len(name) > 4000:
        raise DataError(f"the path {name[:60]!r}... is too long", where=where, expected="at most 255 bytes per name")
    return root / name


def the_file(path: Path, patterns: Sequence[str], example: str) -> Path:
    """`path`, or the only file in it that one of these patterns finds; the first pattern that finds any decides.

    Raises:
        DataError: a folder with no such file, or with several.
    """
    if not path.is_dir():
        return path
    for pattern in patterns:
        found = sorted(p for p in path.glob(pattern) if p.is_file() and not p.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.relative_to(path).as_posix() for p in found[:8])
            raise DataError(
                f"the folder holds {len(found)} such files: {names}", where=path, expected="one file",
                remedy=f"name one, for instance {found[0]}",
            )  # fmt: skip
    raise DataError("this is a folder, and nothing in it looks like the file", where=path, expected=example)


def folder_of(root: Path, *names: str) -> Path:
    """The first of these folders below `root` that is there."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError("there is no such folder", where=root, expected=" or ".join(names), remedy="check --data")


def images_in(folder: Path, notes: list[str] | None = None) -> list[Path]:
    """All images below a folder, in the order of their paths. `notes` gets a line on images of kinds that are not read."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, expected="a folder of images")
    every = files_in(folder, *SUFFIXES, *UNREAD)
    found = [p for p in every if p.suffix.lower() in SUFFIXES]
    others = Counter(p.suffix.lower() for p in every if p.suffix.lower() in UNREAD)
    unread = ", ".join(f"{count} {suffix}" for suffix, count in others.items())
    if not found:
        what = "there are no images" + f" of a kind that is read, but {unread}" * bool(unread)
        raise DataError(what, where=folder, expected=", ".join(SUFFIXES))
    if unread and notes is not None:
        notes.append(f"images of kinds that are not read: {unread} ({folder})")
    return found


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """All files below a folder with one of these suffixes (in any case), in the order of their paths.

    Links are followed. Names that begin with a dot and `LEFTOVERS` are what tools leave behind, and no data.

    Raises:
        DataError: a device or a pipe has such a name.
    """
    found = sorted(p for p in _walk(folder, ()) if p.suffix.lower() in suffixes)
    if odd := next((p for p in found if p.exists() and not p.is_file()), None):
        raise DataError("this is no file but a device or a pipe", where=odd, expected="a file")
    return found


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The files below `folder`; a link to a folder above itself is not followed round and round."""
    real = folder.resolve()
    if real in above or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in LEFTOVERS:
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        else:
            yield path


def image_named(folder: Path, name: str) -> Path:
    """The image of this name with whatever suffix; `NAME.jpg` where there is none."""
    return file_named(folder, name, SUFFIXES)


def file_named(folder: Path, name: str, suffixes: Sequence[str]) -> Path:
    """The file of this name with one of these suffixes, in any usual case; with the first one where there is none."""
    tried = [folder / f"{name}{s}" for suffix in suffixes for s in (suffix, suffix.upper(), suffix.title())]
    return next((p for p in tried if p.exists()), tried[0])


def distinct(names: Sequence[str], where: object) -> None:
    """Refuse images that differ in their suffix only, since a label file's name has another."""
    if twice := next((n for n, count in Counter(names).items() if count > 1), None):
        raise DataError(f"two images are called {twice!r}", where=where, expected="names that differ without suffix")


Rules = Mapping[str, Sequence[tuple[str, str]]]
"""Kind of label -> (pattern of an image's path, the path of its label file), the first that fits."""


IMAGE = r"\.(?:" + "|".join(s[1:] for s in SUFFIXES) + ")"
"""The suffix of an image, in such a pattern; patterns are matched in any case."""


@dataclass(frozen=True)
class Pairs:
    """Images with the places of their label files, and what else lies there.

    orphan_errors: images beside the label files that are neither images nor label files of these. notes: how many others.
    """

    items: Sequence[Item]
    orphan_errors: Sequence[DataError]
    notes: Sequence[str]


def pairs(root: Path, rules: Rules, expected: str) -> Pairs:
    """The images below `root` that fit the rules of every kind, whether or not their label files are there."""
    items, others = [], []
    for image in images_in(root):
        name = image.relative_to(root).as_posix()
        fits = {
            k: next((m.expand(to) for p, to in own if (m := re.fullmatch(p, name, re.IGNORECASE))), None)
            for k, own in rules.items()
        }
        if all(fits.values()):
            items.append(Item(name.rpartition(".")[0], image, {k: root / str(to) for k, to in fits.items()}))
        else:
            others.append(image)
    if not items:
        raise DataError("there are no images with labels", where=root, expected=expected)
    distinct([i.key for i in items], root)
    labels = {p for i in items for p in i.maps.values()}
    folders = {p.parent for p in labels} - {i.image.parent for i in items}
    lost = [p for p in others if p not in labels and p.parent in folders]
    rest = [p for p in others if p not in labels and p.parent not in folders]
    errors = [DataError("the label file belongs to no image", where=p, expected=expected) for p in lost]
    notes = [f"other images below the folder, left out: {len(rest)}, for instance {rest[0]}"] if rest else []
    return Pairs(items, errors, notes)


def text_of(path: Path, expected: str = "UTF-8 text") -> str:
    """A whole text file."""
    try:
        require_regular(path)
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as e:
        raise DataError("there is no such file", where=path, expected=expected, remedy="check --data") from e
    except (OSError, ValueError) as e:
        raise DataError(f"the file cannot be read: {e}", where=path, expected=expected) from e


def bytes_of(path: Path, expected: str) -> bytes:
    """A whole file."""
    try:
        require_regular(path)
        return path.read_bytes()
    except FileNotFoundError as e:
        raise DataError("there is no such file", where=path, expected=expected, remedy="check --data") from e
    except (OSError, ValueError) as e:
        raise DataError(f"the file cannot be read: {e}", where=path, expected=expected) from e


def json_of(path: Path, expected: str, lists: Sequence[str] = ()) -> Any:
    """A whole JSON file; with `lists`, an object that has these lists. NaN is let through, for the format to refuse."""
    data = bytes_of(path, expected)
    try:
        content = orjson.loads(data)
    except ValueError:
        try:
            content = parse_json(data)  # slower, but knows NaN and says where an error is
        except ValueError as e:
            raise DataError(f"the file is no JSON: {e}", where=path, expected=expected) from e
    missing = [k for k in lists if not isinstance(content, dict) or not isinstance(content.get(k), list)]
    if missing:
        raise DataError(f"the file has no list {', '.join(missing)}", where=path, expected=", ".join(lists))
    return content
