"""Images and masks in two folders: `masks:ROOT`, or `masks:ROOT@SPLIT` for the subfolder SPLIT of both.

`ROOT/images/NAME.jpg` has its mask in `ROOT/masks/NAME.png` (or `annotations`, as ADE20K calls it; or a TIFF): palette
indices, grey values or colours, whose meaning a file in ROOT tells (`classes.json` and others, see `legend`). A value or a
colour that has no name is an error. `ROOT/depth/NAME.png` is depth in millimetres, 16 bits, 0 unknown; `NAME.npy`,
`NAME.tif` and `NAME.exr` hold floats in metres, unknown where 0 or not finite; `ROOT/depth.json` may state another unit
(see `depths`). A folder of images and depth alone needs no masks and no classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from datasetdm.errors import DataError
from datasetdm.readers.depths import SUFFIXES as DEPTH_SUFFIXES
from datasetdm.readers.depths import UNIT_FILE, read_any_depth, read_unit
from datasetdm.readers.legend import FILES, read_legend
from datasetdm.readers.maps import Palette, require_classes
from datasetdm.readers.places import SUFFIXES, distinct, files_in, folder_of, images_in, inside, with_option
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import Annotations, Labels, SemanticMap

LAYOUT = """\
ROOT/
  classes.json                   {"wall": 1, "tree": 2, "ignore": 0}, or a list, or colours (or id2label.json, ...)
  images/NAME.jpg                with @SPLIT: images/SPLIT/NAME.jpg, and so for the others
  masks/NAME.png                 class per pixel (or annotations/NAME.png, or TIFF)
  depth/NAME.png                 16 bits, millimetres, 0 unknown; or NAME.npy, .tif, .exr: floats in metres; optional
  depth.json                     {"unit": "centimetre"}, where depth has another unit; optional
"""

_ARRAYS, _TEXTS = (".npy", ".npz", ".mat", ".exr"), (".json", ".xml", ".txt")
"""Of label files that are not read; texts may also say something of the whole folder."""

T = TypeVar("T")


class MasksSource(FilesSource):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        root, split = with_option(path)
        if not root.is_dir():
            raise DataError("there is no such folder", where=root, expected="images/, masks/ and classes.json")
        notes: list[str] = []
        faults: list[DataError] = []
        deep_folder = inside(root / "depth", split, root) if split else root / "depth"
        masks: Path | None = None
        self.labels, self._palette = Labels(("image",)), Palette()
        if not deep_folder.is_dir() or any((root / n).exists() for n in ("masks", "annotations", *FILES)):
            self.labels, self._palette = _tried(faults, lambda: read_legend(root)) or (self.labels, self._palette)
            masks = _tried(faults, lambda: _part(folder_of(root, "masks", "annotations"), split))
        folder = _tried(faults, lambda: _part(images or folder_of(root, "images"), split))
        files = _tried(faults, lambda: images_in(folder, notes)) if folder else None
        if faults or folder is None or files is None:
            raise _one_of(faults, root)
        found = _named(folder, files)
        painted = _named(masks, files_in(masks, *SUFFIXES)) if masks else {}
        deep = _depth_files(deep_folder)
        if painted and not set(painted) & set(found):
            raise DataError(
                "no mask has the name of an image",
                where=next(iter(painted.values())),
                expected=f"for instance {next(iter(found))}.png, for {files[0]}",
                remedy="name every mask as its image",
            )
        maps = {n: {"mask": painted.get(n, masks / f"{n}.png")} if masks else {} for n in found}
        self.items = [Item(n, f, maps[n] | ({"depth": deep[n]} if n in deep else {})) for n, f in found.items()]
        require_classes(self._palette, ((m["mask"], m["mask"]) for m in maps.values() if m))
        self._unit, self.notes = read_unit(root), notes
        self.orphan_errors = [
            *(_other_kinds(masks, found) if masks else ()),
            *_orphans("mask", painted, found, folder),
            *_orphans("depth file", deep, found, folder),
        ]

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The semantic map, and depth where it is there."""
        path, deep = item.maps.get("mask"), item.maps.get("depth")
        semantic = SemanticMap(self._palette.ids(path, path, size)) if path else None
        return Annotations(semantic, depth=read_any_depth(deep, size, self._unit) if deep else None)


def _tried(faults: list[DataError], find: Callable[[], T]) -> T | None:
    """What is found; an error joins the others."""
    try:
        return find()
    except DataError as e:
        faults.append(e)
        return None


def _one_of(faults: list[DataError], root: Path) -> DataError:
    """The only error, or all in one: whoever lays out a folder wants to know everything at once."""
    if len(faults) == 1:
        return faults[0]
    there = sorted(p.name + "/" * p.is_dir() for p in root.iterdir() if not p.name.startswith("."))
    return DataError(
        "; ".join(f"{e.what} ({e.expected})" for e in faults),
        where=root,
        expected="images/NAME.jpg, masks/NAME.png and classes.json",
        remedy=f"rename what is there: {', '.join(there[:8]) or 'nothing'}",
    )


def _part(folder: Path, split: str) -> Path:
    part = inside(folder, split, folder) if split else folder
    if not part.is_dir():
        known = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())[:8])
        raise DataError("there is no such folder", where=part, expected=known or "a folder", remedy="check --data")
    return part


def _named(folder: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Files by their path below a folder, without suffix. Raises DataError where two have one name."""
    named = _stems(folder, files)
    distinct([n for n, _ in named], folder)
    return dict(named)


def _stems(folder: Path, files: Sequence[Path]) -> list[tuple[str, Path]]:
    return [(p.relative_to(folder).with_suffix("").as_posix(), p) for p in files]


def _other_kinds(masks: Path, images: Mapping[str, Path]) -> list[DataError]:
    """Label files that are not read: arrays, and texts that are called as an image."""
    named = _stems(masks, files_in(masks, *_TEXTS))
    found = [*files_in(masks, *_ARRAYS), *(p for n, p in named if n in images)]
    return [DataError(f"a mask is no {p.suffix}", where=p, expected="PNG or TIFF") for p in found]


def _orphans(kind: str, files: Mapping[str, Path], images: Mapping[str, Path], folder: Path) -> list[DataError]:
    lost = sorted(set(files) - set(images))
    return [DataError(f"the {kind} has no image", where=files[n], expected=f"an image in {folder}") for n in lost]


def _depth_files(folder: Path) -> dict[str, Path]:
    """Depth by name. Raises DataError for a file of another kind, since it would be left out in silence."""
    found = files_in(folder, *DEPTH_SUFFIXES, *SUFFIXES, *_ARRAYS, *_TEXTS, ".pfm")
    odd = next((p for p in found if p.suffix.lower() not in DEPTH_SUFFIXES and p.name != UNIT_FILE), None)
    if odd:
        raise DataError(f"depth is no {odd.suffix}", where=odd, expected=" or ".join(DEPTH_SUFFIXES))
    return _named(folder, [p for p in found if p.name != UNIT_FILE])
