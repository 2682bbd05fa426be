"""Pictures alone, for annotating what exists: `images:DIR`, all pictures below it, in the order of their paths.

A text file beside a picture (`cat.jpg`, `cat.txt`) is its caption.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasetdm.codecs import read_image
from datasetdm.errors import DataError
from datasetdm.types import Labels, Prompt, Sample

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class ImagesReader:
    """See the module. Its only label is `picture`, which no sample carries."""

    labels = Labels(("picture",))

    def __init__(self, path: str, images: Path | None = None):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError("there is no such folder", where=self.path, expected="a folder of pictures")
        self._files = sorted(p for p in self.path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not self._files:
            raise DataError("there are no pictures", where=self.path, expected=", ".join(sorted(SUFFIXES)))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Sample]:
        for file in self._files:
            name, told = file.relative_to(self.path).as_posix(), file.with_suffix(".txt")
            prompt = Prompt(told.read_text(encoding="utf-8").strip()) if told.is_file() else None
            yield Sample(name, read_image(file, file), self.labels, prompt, {}, {"file": name})
