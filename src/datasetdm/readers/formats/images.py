"""Images alone, for annotating what exists: `images:DIR`, all images below it, in the order of their paths.

A text file beside an image (`cat.jpg`, `cat.txt`) is its caption.
"""

from __future__ import annotations

from pathlib import Path

from datasetdm.io.codecs import image_size, read_image
from datasetdm.readers.places import images_in, text_of
from datasetdm.readers.source import Source
from datasetdm.records import Labels, Prompt, Provenance, Sample

LAYOUT = """\
DIR/
  NAME.jpg                       images, also in subfolders
  NAME.txt                       its caption; optional
"""


class ImagesSource(Source):
    """See the module. Its only label is `image`, which no sample carries."""

    labels = Labels(("image",))

    def __init__(self, path: str, images: Path | None = None):
        self.path = Path(path)
        notes: list[str] = []
        self._files = images_in(self.path, notes)
        self.notes = notes

    def __len__(self) -> int:
        return len(self._files)

    def check(self, index: int) -> None:
        """The image can be opened."""
        image_size(self._files[index], self._files[index])

    def __getitem__(self, index: int) -> Sample:
        file = self._files[index]
        name, caption = file.relative_to(self.path).as_posix(), file.with_suffix(".txt")
        prompt = Prompt(text_of(caption).strip(), origin="caption") if caption.is_file() else None
        return Sample(name, read_image(file, file), self.labels, prompt, provenance=Provenance(name), encoded=file)
