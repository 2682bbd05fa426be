"""YOLO's folders, as Ultralytics documents them: `yolo:data.yaml`, or `yolo:data.yaml@val` for another split.

Every image `.../images/NAME.jpg` has `.../labels/NAME.txt`, one object a line, numbers as shares of width and height:
`class x y w h` (a box by its centre), `class x1 y1 x2 y2 ...` (an outline), or, where data.yaml has `kpt_shape: [K, D]`, a
box and K points of D = 2 or 3 numbers. An image without a label file shows no object. A box becomes an object whose mask is
the box filled (`Instances.boxed`) and no semantic map.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import BaseModel, Field, ValidationError

from datasetdm.errors import DataError
from datasetdm.io.codecs import image_size, polygon_runs, read_image
from datasetdm.readers.places import image_named, images_in, inside, text_of, the_file, with_option
from datasetdm.readers.regions import (
    Edges,
    Region,
    box_runs,
    clip_points,
    covers,
    from_regions,
    instances,
    label_name,
    with_background,
)
from datasetdm.readers.source import Source, caption_prompt
from datasetdm.records import Annotations, Keypoints, Labels, Provenance, Sample, Skeleton
from datasetdm.records.objects import Runs

LAYOUT = """\
ROOT/
  data.yaml                      train: images/train, val: images/val, names: [dog, cat]
  images/train/NAME.jpg
  labels/train/NAME.txt          per object: class x y w h, or class x1 y1 x2 y2 ... as fractions of width and height
"""

_LABEL_SUFFIXES = {".txt", ".json", ".xml", ".csv"}

Row = tuple[int, list[float]]
"""Class and the numbers behind it."""


class YoloSource(Source):
    """See the module."""

    def __init__(self, path: str, images: Path | None = None):
        place, split = with_option(path)
        self.path = the_file(place, ("data.y*ml", "dataset.y*ml", "*.y*ml", "*/data.y*ml"), "data.yaml")
        self.split = split or "train"
        self._notes: list[str] = []
        self._mixed = 0
        content = DataYaml.load(self.path)
        names = content.classes(self.path)
        self.points = content.points(self.path)
        skeletons = {n: Skeleton(self.points) for n in names} if self.points else {}
        self.labels = Labels(with_background(names), skeletons=skeletons)
        self._label_of = [self.labels.index[n] for n in names]
        self._numbers = content.kpt_shape[1] if content.kpt_shape else 0
        self._files = images_in(images, self._notes) if images else self._find(content)
        self.orphan_errors = self._check_label_files()
        self._above = os.path.commonpath([f.parent for f in self._files]) if self._files else ""
        self._stems_differ = len({f.stem for f in self._files}) == len(self._files)

    @property
    def notes(self) -> Sequence[str]:  # ty: ignore[incompatible-property-override]
        """What was read leniently: so far, since `check` reads the label files."""
        mixed = f"label files of boxes and outlines, all taken for boxes as Ultralytics does: {self._mixed}"
        return [*self._notes, *([mixed] if self._mixed else [])]

    def __len__(self) -> int:
        return len(self._files)

    def check(self, index: int) -> None:
        """The image can be opened, and every line of its label file read."""
        image_size(self._files[index], self._files[index])
        rows = self._read(self._files[index])
        self._mixed += not self.points and len({len(numbers) == 4 for _, numbers in rows}) > 1

    def __getitem__(self, index: int) -> Sample:
        file = self._files[index]
        rows, image = self._read(file), read_image(file, file)
        records = self._records(rows, image.shape[:2], _labels_of(file))
        found = tuple(dict.fromkeys(self.labels.names[self._label_of[c]] for c, _ in rows))
        key = file.stem if self._stems_differ else file.relative_to(self._above).as_posix()
        return Sample(
            key, image, self.labels, caption_prompt(None, found),
            **records.fields(), provenance=Provenance(file.name), encoded=file,
        )  # fmt: skip

    # ------------------------------------------------------------------ records
    def _records(self, rows: Sequence[Row], size: tuple[int, int], where: Path) -> Annotations:
        if rows and not self.points and all(len(numbers) > 4 for _, numbers in rows):
            shapes = [[v * size[1 - i % 2] for i, v in enumerate(numbers)] for _, numbers in rows]
            masks = [polygon_runs([s], size) for s in shapes]
            _check_masks(masks, where)
            return from_regions(self._regions(rows, masks), self.labels, size)
        boxes = [_edges(numbers, size, outline=len(numbers) > 4 and not self.points) for _, numbers in rows]
        masks = [box_runs(*b, size) for b in boxes]
        _check_masks(masks, where)
        objects = instances(self._regions(rows, masks), size, boxed=True, boxes=boxes)
        return Annotations(instances=objects, keypoints=self._keypoints(rows, size) if self.points else None)

    def _regions(self, rows: Sequence[Row], masks: Sequence[Runs]) -> list[Region]:
        return [Region(m, self._label_of[c]) for m, (c, _) in zip(masks, rows, strict=True)]

    def _keypoints(self, rows: Sequence[Row], size: tuple[int, int]) -> Keypoints:
        k, d = len(self.points), self._numbers
        values = np.array([numbers[4:] for _, numbers in rows], np.float32).reshape(len(rows), k, d)
        xy = values[..., :2] * np.array(size[::-1], np.float32)
        seen = np.rint(values[..., 2]) if d == 3 else np.where((values > 0).any(-1), 2, 0)
        values = clip_points(np.concatenate([xy, seen[..., None]], -1).astype(np.float32), size)
        return Keypoints(values[..., :2], values[..., 2].astype(np.uint8), (self.points,) * len(rows))

    # ------------------------------------------------------------------ files
    def _find(self, content: DataYaml) -> list[Path]:
        """The images of the split: a folder, several, or text files that list images."""
        root = self.path.parent / content.path
        if not root.is_dir():  # Ultralytics reads it below its own folder of data sets
            self._notes.append(f"path: {content.path} is not there, so the folder of {self.path.name} is taken")
            root = self.path.parent
        files: list[Path] = []
        for entry in content.split(self.split, self.path):
            place = _place(root, entry, self.path)
            if place.suffix == ".txt":
                lines = text_of(place).split("\n")
                files += [_place(root, line.strip(), place) for line in lines if line.strip()]
            else:
                files += images_in(place, self._notes)
        if not files:
            raise DataError("the split has no images", where=f"{self.path}, {self.split}", expected="image files")
        return files

    def _check_label_files(self) -> list[DataError]:
        """Label files that belong to no image. Raises DataError if no image of the split has one."""
        labels = [_labels_of(f) for f in self._files]
        if not any(p.is_file() for p in labels):
            raise DataError(
                f"none of the {len(labels)} images has a label file",
                where=labels[0],
                expected="labels/NAME.txt for images/NAME.jpg, or NAME.txt beside it",
                remedy="move the label files there; an empty file says that an image shows no object",
            )
        folders = {p.parent: f.parent for p, f in zip(labels, self._files, strict=True) if p.parent != f.parent}
        found = (
            p
            for folder in sorted(folders)
            for p in sorted(folder.glob("*"))
            if p.suffix.lower() in _LABEL_SUFFIXES and not p.name.startswith(".")
        )
        return [
            DataError("the label file belongs to no image", where=p, expected="NAME.txt of an image")
            for p in found
            if p.suffix.lower() != ".txt"
            or not (image_named(folders[p.parent], p.stem).is_file() or p.name == "classes.txt")
        ]

    def _read(self, file: Path) -> list[Row]:
        path = _labels_of(file)
        if not path.exists():
            return []
        lines = enumerate(text_of(path).split("\n"), 1)
        return [self._line(t, f"{path}, line {n}") for n, t in lines if t.strip()]

    def _line(self, text: str, where: str) -> Row:
        try:
            numbers = [float(v) for v in text.split()]
        except ValueError as e:
            raise DataError(f"{text[:60]!r} is no line of numbers", where=where, expected="class x y w h ...") from e
        label, rest = numbers[0], numbers[1:]
        if label % 1 != 0 or not 0 <= label < len(self._label_of):
            raise DataError(f"class {numbers[0]:g}", where=where, expected=f"0..{len(self._label_of) - 1}")
        wanted = 4 + len(self.points) * self._numbers
        outline = not self.points and len(rest) >= 6 and len(rest) % 2 == 0
        if len(rest) != wanted and not outline:
            expected = f"{wanted} numbers" + ("" if self.points else ", or x, y of at least 3 points")
            raise DataError(f"{len(rest)} numbers behind the class", where=where, expected=expected)
        shares = rest[:4] + [v for i, v in enumerate(rest[4:]) if outline or i % self._numbers < 2]
        if not all(-0.01 <= v <= 1.01 for v in shares):  # nor NaN
            raise DataError(
                "a number is no share of the image", where=where, expected="0..1", remedy="divide by width and height"
            )
        return int(label), rest


class DataYaml(BaseModel):
    """`data.yaml`. Every scalar of YAML is read as a text, so that a class may be called `no` or `2024-01-01`."""

    path: str = ""
    train: str | list[str] = ""
    val: str | list[str] = ""
    test: str | list[str] = ""
    names: list[str] | dict[int, str] | None = None
    nc: Annotated[int, Field(ge=1, le=65_000)] | None = None
    kpt_shape: tuple[Annotated[int, Field(ge=1, le=1000)], Annotated[int, Field(ge=2, le=3)]] | None = None
    kpt_names: list[str] | dict[str, list[str]] | None = None

    @classmethod
    def load(cls, path: Path) -> DataYaml:
        """Read and check a file. Raises DataError."""
        try:
            content = yaml.load(text_of(path), yaml.BaseLoader)
        except (yaml.YAMLError, RecursionError) as e:
            what = str(e).splitlines()[0] or "too deep"
            raise DataError(f"the file is no YAML: {what}", where=path, expected="data.yaml") from e
        if not isinstance(content, dict):
            raise DataError("the file holds no settings", where=path, expected="train: FOLDER and names: [...]")
        try:
            return cls(**{k: v for k, v in content.items() if k in cls.model_fields and v not in ("", "null", "~")})
        except ValidationError as e:
            first = e.errors(include_url=False, include_input=False)[0]
            name = first["loc"][0]
            expected = {"names": "a list, or number: name", "kpt_shape": "[points, 2 or 3]"}.get(str(name))
            raise DataError(f"{name} cannot be read: {first['msg']}", where=path, expected=expected) from e

    def classes(self, path: Path) -> list[str]:
        """The class names in the order of their numbers."""
        names = [f"class_{i}" for i in range(self.nc or 0)] if self.names is None else self.names
        numbered = names if isinstance(names, dict) else dict(enumerate(names))
        if self.nc is not None and self.nc != len(numbered):
            raise DataError(f"nc is {self.nc}, and there are {len(numbered)} names", where=path, expected="one number")
        if sorted(numbered) != list(range(len(numbered))):
            raise DataError("the classes are not numbered 0, 1, 2, ...", where=f"{path}, names")
        if not numbered:
            raise DataError("there are no class names", where=f"{path}, names", expected="a list, or number: name")
        return [label_name(numbered[i]) for i in range(len(numbered))]

    def points(self, path: Path) -> tuple[str, ...]:
        """The names of the points; none where objects have no points."""
        if self.kpt_shape is None:
            return ()
        named = self.kpt_names
        named = next(iter(named.values()), None) if isinstance(named, dict) else named
        if named is not None and len(named) != self.kpt_shape[0]:
            raise DataError(
                f"{len(named)} kpt_names for {self.kpt_shape[0]} points", where=path, expected="one per point"
            )
        return tuple(named) if named else tuple(f"point{i}" for i in range(self.kpt_shape[0]))

    def split(self, name: str, path: Path) -> list[str]:
        """The folders and lists of a split."""
        parts = {k: getattr(self, k) for k in ("train", "val", "test")}
        found = parts.get(name)
        if not found:
            known = ", ".join(k for k, v in parts.items() if v)
            raise DataError(f"there is no split {name!r}", where=path, expected=known or "train: FOLDER")
        return [found] if isinstance(found, str) else found


def _place(root: Path, entry: str, where: Path) -> Path:
    """A split's folder; `../X`, as Roboflow writes it, is X beside data.yaml where there is no other (Ultralytics' rule)."""
    parts = Path(entry).parts
    if parts and parts[0] == ".." and (root / Path(*parts[1:])).exists():
        entry = Path(*parts[1:]).as_posix()
    try:
        return inside(root, entry, where)
    except DataError as e:
        e.remedy = f"write it as seen from {root}, for instance images/train"
        raise


def _labels_of(image: Path) -> Path:
    """The label file: `images`, in the last place where it stands alone, gives way to `labels`; else beside the image."""
    text = image.with_suffix(".txt")
    parts = list(text.parts)
    place = next((i for i in range(len(parts) - 2, -1, -1) if parts[i].lower() == "images"), None)
    if place is None:
        return text
    tried = [Path(*parts[:place], word, *parts[place + 1 :]) for word in _LABELS_FOLDERS[parts[place] == "images"]]
    return next((p for p in (*tried, text, tried[0].with_suffix(".TXT")) if p.exists()), tried[0])


_LABELS_FOLDERS = {True: ("labels", "Labels", "LABELS"), False: ("Labels", "labels", "LABELS")}


def _edges(numbers: Sequence[float], size: tuple[int, int], outline: bool) -> Edges:
    """The box of an outline, or one given by its centre and sides, as fractions of the image."""
    high, wide = size
    if outline:
        across, down = numbers[::2], numbers[1::2]
        return min(across) * wide, min(down) * high, max(across) * wide, max(down) * high
    x, y, w, h = numbers[:4]
    return (x - w / 2) * wide, (y - h / 2) * high, (x + w / 2) * wide, (y + h / 2) * high


def _check_masks(masks: Sequence[Runs], where: Path) -> None:
    for n, mask in enumerate(masks, 1):
        if not covers(mask):
            raise DataError("an object covers no pixel", where=f"{where}, object {n}", expected="a larger one, or none")
