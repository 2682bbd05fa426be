"""Our own stores as labelled data."""

from __future__ import annotations

from pathlib import Path

from datasetdm.readers.source import Source
from datasetdm.records import Sample
from datasetdm.store.store import Store

LAYOUT = """\
DIR/                             what generate and annotate write
  dataset.json
  data/*.parquet
  reviews.jsonl                  optional
"""


class StoreSource(Source):
    """`store:DIR`. Samples come with everything that the store knows."""

    def __init__(self, path: str, images: Path | None = None):
        self.store = Store(path)
        self.labels = self.store.labels

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Sample:
        return self.store[index]
