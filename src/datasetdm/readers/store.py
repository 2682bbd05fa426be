"""Our own stores as labelled data."""

from __future__ import annotations

from pathlib import Path

from datasetdm.store import Store


class StoreReader(Store):
    """`store:DIR`. Samples come with everything that the store knows."""

    def __init__(self, path: str, images: Path | None = None):
        super().__init__(path)
