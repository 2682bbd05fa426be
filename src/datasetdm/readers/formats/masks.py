"""Images and masks in two folders: `masks:ROOT`, or `masks:ROOT@SPLIT` for the subfolder SPLIT of both.

`ROOT/images/NAME.jpg` has its mask in `ROOT/masks/NAME.png` (or `annotations`, as ADE20K calls it): palette indices, grey
values or colours, whose meaning a file in ROOT tells (`classes.json` and others, see `legend`). A value or a colour that has
no name is an error. `ROOT/depth/NAME.png` is
depth in millimetres, 16 bits, 0 unknown; `NAME.npy` and `NAME.tif` hold floats in metres, unknown where 0 or not finite.
"""

from __future__ import annotations

from pathlib import Path

from datasetdm.errors import DataError
from datasetdm.readers.legend import read_legend
from datasetdm.readers.maps import DEPTH_SUFFIXES, read_any_depth, require_classes
from datasetdm.readers.places import SUFFIXES, distinct, files_in, folder_of, images_in, inside, with_option
from datasetdm.readers.source import FilesSource, Item
from datasetdm.records import Annotations, SemanticMap

LAYOUT = """\
ROOT/
  classes.json                   {"wall": 1, "tree": 2, "ignore": 0}, or a list, or colours (or id2label.json, ...)
  images/NAME.jpg                with @SPLIT: images/SPLIT/NAME.jpg, and so for the others
  masks/NAME.png                 class per pixel (or annotations/NAME.png)
  depth/NAME.png                 16 bits, millimetres, 0 unknown; or NAME.npy, NAME.tif: floats in metres; optional
"""


class MasksSource(FilesSource):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        root, split = with_option(path)
        if not root.is_dir():
            raise DataError("there is no such folder", where=root, expected="images/, masks/ and classes.json")
        self.labels, self._palette = read_legend(root)
        images = images or folder_of(root, "images")
        masks = folder_of(root, "masks", "annotations")
        if split:
            images, masks = (inside(folder, split, root) for folder in (images, masks))
        files = images_in(images)
        names = [p.relative_to(images).with_suffix("").as_posix() for p in files]
        distinct(names, images)
        found = dict(zip(names, files, strict=True))
        deep = _depth_files(inside(root / "depth", split, root) if split else root / "depth")
        self.items = [
            Item(n, f, {"mask": masks / f"{n}.png"} | ({"depth": deep[n]} if n in deep else {}))
            for n, f in found.items()
        ]
        require_classes(self._palette, (i.maps["mask"] for i in self.items))
        present = {p.relative_to(masks).with_suffix("").as_posix() for p in files_in(masks, ".png")}
        self.orphan_errors = [
            DataError("the mask has no image", where=masks / f"{name}.png", expected=f"an image in {images}")
            for name in sorted(present - set(found))
        ] + [
            DataError("the depth file has no image", where=deep[name], expected=f"an image in {images}")
            for name in sorted(set(deep) - set(found))
        ]

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """The semantic map, and depth where it is there."""
        path, deep = item.maps["mask"], item.maps.get("depth")
        semantic = SemanticMap(self._palette.ids(path, path, size))
        return Annotations(semantic, depth=read_any_depth(deep, size) if deep else None)


def _depth_files(folder: Path) -> dict[str, Path]:
    """Depth by name. Raises DataError for a file of another kind, since it would be left out in silence."""
    found = files_in(folder, *DEPTH_SUFFIXES, *SUFFIXES, ".exr", ".pfm", ".npz", ".txt")
    if odd := next((p for p in found if p.suffix.lower() not in DEPTH_SUFFIXES), None):
        raise DataError(f"depth is no {odd.suffix}", where=odd, expected=" or ".join(DEPTH_SUFFIXES))
    names = [p.relative_to(folder).with_suffix("").as_posix() for p in found]
    distinct(names, folder)
    return dict(zip(names, found, strict=True))
