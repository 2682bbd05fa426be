"""A plug-in: a reader of boxes in a CSV file, and a transform that removes small objects.

`pip install ./examples/plugin`, then `datasetdm inspect csv-boxes:FILE.csv`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from datasetdm.errors import DataError
from datasetdm.io.codecs import image_size, read_image
from datasetdm.readers.places import inside, text_of
from datasetdm.readers.regions import Edges, Region, box_runs, instances
from datasetdm.readers.source import Source
from datasetdm.records import Labels, Sample
from datasetdm.records.edits import keep_objects
from datasetdm.transforms import Transform

LAYOUT = """
FOLDER/
  FILE.csv     image,label,left,top,right,bottom (pixels), one line per object
  NAME.jpg     the images, named by FILE.csv
"""


class CsvBoxes(Source):
    """Images with boxes; see `LAYOUT`."""

    def __init__(self, path: str, images: Path | None = None):
        folder = images or Path(path).parent
        self.boxes: dict[Path, list[tuple[str, Edges]]] = {}
        for number, row in enumerate(csv.reader(text_of(Path(path)).splitlines()[1:]), 2):
            where = f"{path}, line {number}"
            try:
                name, label, *edges = row
                left, top, right, bottom = map(float, edges)
            except ValueError as e:
                raise DataError(
                    "a line cannot be read", where=where, expected="image,label,left,top,right,bottom"
                ) from e
            self.boxes.setdefault(inside(folder, name, where), []).append((label, (left, top, right, bottom)))
        self.files = sorted(self.boxes)
        self.labels = Labels(tuple(sorted({label for own in self.boxes.values() for label, _ in own})))

    def __len__(self) -> int:
        return len(self.files)

    def check(self, index: int) -> None:
        """The image can be opened."""
        image_size(self.files[index], self.files[index])

    def __getitem__(self, index: int) -> Sample:
        file = self.files[index]
        image, own = read_image(file, file), self.boxes[file]
        size = image.shape[:2]
        regions = [Region(box_runs(*edges, size), self.labels.index[label]) for label, edges in own]
        objects = instances(regions, size, boxed=True, boxes=[edges for _, edges in own])
        return Sample(file.stem, image, self.labels, instances=objects, encoded=file)


class DropSmall(Transform):
    """Removes objects of fewer than `area` pixels."""

    name: ClassVar[str] = "drop-small"
    area: int = 64

    def __call__(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            objects = sample.instances
            yield sample if objects is None else keep_objects(sample, objects.masks.areas >= self.area)
