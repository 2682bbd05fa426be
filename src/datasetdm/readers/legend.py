"""Which classes a folder of masks has: the files that say what values or colours mean."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

from datasetdm.errors import DataError
from datasetdm.readers.maps import Colour, Palette
from datasetdm.readers.places import json_of, text_of
from datasetdm.readers.regions import label_name
from datasetdm.records import IGNORE, Labels

FILES = ("classes.json", "id2label.json", "dataset_meta.json", "labelmap.txt", "objectInfo150.txt")


def read_legend(folder: Path) -> tuple[Labels, Palette]:
    """The labels and the palette of a folder, from the first of these files:

    classes.json: `["wall", "tree"]`, the values 0, 1, ...; or `{"wall": 1, "tree": 2}`; or colours
    `{"road": [128, 64, 128], "sky": "#4682b4"}`. A name `ignore` is no label: its value, colour, or list of them is ignored.
    id2label.json: `{"0": "wall", ...}` (Hugging Face). labelmap.txt: lines `name:r,g,b` (CVAT). dataset_meta.json: `label_map`
    {"0": name} and `segmentation_colors` [[r, g, b], ...] in its order (Datumaro). objectInfo150.txt: ADE20K's table; 0 is
    ignored.

    The value 255 is ignored, unless it has a name.
    """
    for name in FILES:
        if (path := folder / name).is_file():
            return _READ[name](path)
    raise DataError(
        "nothing says what the masks' values mean",
        where=folder,
        expected=f"one of: {', '.join(FILES)}",
        remedy=f'write {folder / "classes.json"}, for instance {{"wall": 1, "tree": 2, "ignore": 0}}',
    )


def _classes(path: Path) -> tuple[Labels, Palette]:
    content = json_of(path, "a list of names, or names with values or colours")
    if isinstance(content, dict) and all(isinstance(v, str) and not _colour(v) for v in content.values()):
        return _id2label(path)  # the other way round
    if isinstance(content, list):
        named = len({*map(str, content)}) == len(content) and all(isinstance(n, str) for n in content)
        content = {n: i for i, n in enumerate(content)} if named else None
    if not isinstance(content, dict) or not content:
        raise DataError(
            "the file names no classes", where=path, expected="names that differ, or {name: value or colour}"
        )
    names = tuple(n for n in content if n != "ignore")
    labels = Labels(tuple(map(label_name, names)))
    pairs = [(content[n], i) for i, n in enumerate(names)]
    ignored = content.get("ignore", [])
    single = _colour(ignored) and all(_colour(v) for v, _ in pairs)
    pairs += [(v, IGNORE) for v in ([ignored] if single or not isinstance(ignored, list) else ignored)]
    return labels, _palette(pairs, path)


def _id2label(path: Path) -> tuple[Labels, Palette]:
    content = json_of(path, "values with names")
    if not _numbered(content):
        raise DataError("the file names no classes", where=path, expected='{"0": name, ...}')
    ignored = [int(v) for v, name in content.items() if name == "ignore"]
    named = {int(v): label_name(name) for v, name in content.items() if name != "ignore"}
    pairs = [(v, i) for i, v in enumerate(named)] + [(v, IGNORE) for v in ignored]
    return Labels(tuple(named.values())), _palette(pairs, path)


def _numbered(content: Any) -> TypeGuard[dict[str, str]]:
    """Whether something is values with names, as `{"0": name}`."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(re.fullmatch(r"\d{1,5}", k) and isinstance(v, str) for k, v in content.items())
    )


def _meta(path: Path) -> tuple[Labels, Palette]:
    content = json_of(path, "label_map and segmentation_colors")
    named = content.get("label_map") if isinstance(content, dict) else None
    if not _numbered(named):
        raise DataError("the file has no label_map", where=path, expected='{"label_map": {"0": name, ...}}')
    colours = content.get("segmentation_colors")
    if colours is not None and (not isinstance(colours, list) or len(colours) != len(named)):
        raise DataError("segmentation_colors do not match label_map", where=path, expected="one a label")
    values = list(range(len(named))) if colours is None else colours
    keys = [int(k) for k in named] if colours is None else values
    labels = Labels(tuple(map(label_name, named.values())))
    return labels, _palette([(v, i) for i, v in enumerate(keys)], path)


def _labelmap(path: Path) -> tuple[Labels, Palette]:
    colours = voc_labelmap(path)
    names = tuple(dict.fromkeys(n for n in colours.values() if n != "ignored"))
    return Labels(names), Palette({}, {c: names.index(n) if n in names else IGNORE for c, n in colours.items()})


def _ade20k(path: Path) -> tuple[Labels, Palette]:
    rows = [line.split("\t") for line in text_of(path).splitlines()[1:] if line.strip()]
    try:
        words = [tuple(w.strip() for w in row[-1].split(",")) for row in rows]
        values = {int(row[0]): i for i, row in enumerate(rows)}
        stuff = tuple(w[0] for w, row in zip(words, rows, strict=True) if int(row[-2]) == 1)
    except (ValueError, IndexError) as e:
        raise DataError("the table cannot be read", where=path, expected="Idx Ratio Train Val Stuff Name") from e
    names = [w[0] for w in words]
    unique = tuple(n if names.count(n) == 1 else ", ".join(w) for n, w in zip(names, words, strict=True))
    labels = Labels(unique, tuple(w[1:] for w in words), tuple(n for n in unique if n in stuff))
    return labels, Palette({0: IGNORE, 255: IGNORE} | values)


_READ = dict(zip(FILES, (_classes, _id2label, _meta, _labelmap, _ade20k), strict=True))


def _palette(pairs: list[tuple[Any, int]], path: Path) -> Palette:
    """Values and colours with their labels; one that is there twice is an error."""
    values: dict[int, int] = {}
    colours: dict[Colour, int] = {}
    for value, label in pairs:
        colour = _colour(value)
        if type(value) is float and value.is_integer():
            value = int(value)
        if colour is None and not (type(value) is int and 0 <= value <= 65535):
            raise DataError(f"{value!r} is no value or colour", where=path, expected="0..65535, [r, g, b] or #rrggbb")
        if (colour in colours) if colour else (value in values):
            raise DataError(f"{value!r} means two classes", where=path, expected="one class a value")
        if colour:
            colours[colour] = label
        else:
            values[value] = label
    return Palette({255: IGNORE} | values if values else {}, colours, assumes_ignore=255 not in values)


def _colour(value: Any) -> Colour | None:
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            value = list(bytes.fromhex(value[1:]))
        except ValueError:
            return None
    ok = isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    return (value[0], value[1], value[2]) if ok else None


def voc_labelmap(path: Path) -> dict[Colour, str]:
    """Colour -> name of a file of lines `name:r,g,b`, as CVAT and Datumaro write it."""
    colours: dict[Colour, str] = {}
    for n, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            colour = _colour([int(v) for v in rest.split(":")[0].split(",")])
        except ValueError:
            colour = None
        if not name.strip() or colour is None or colour in colours:
            raise DataError(
                f"{line[:60]!r} is no class of its own colour", where=f"{path}, line {n}", expected="name:r,g,b"
            )
        colours[colour] = name.strip()
    return colours


@cache
def voc_colours() -> tuple[Colour, ...]:
    """VOC's colour of every index: its bits dealt out to red, green and blue, three at a time, from the highest down."""
    table = []
    for index in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            for c in range(3):
                channels[c] |= (index >> (3 * bit + c) & 1) << (7 - bit)
        table.append((channels[0], channels[1], channels[2]))
    return tuple(table)
