"""Sources and decoders without a real model, for tests of what runs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasetdm.pipelines.stream import Keys
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store
from factory import LABELS, make_sample


class InMemoryReader:
    """Samples as a reader."""

    def __init__(self, samples: list[Sample]):
        self.samples, self.labels = samples, samples[0].labels

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


class NamedSamples:
    """A source of made samples by their keys, which counts how many it made."""

    labels: Labels = LABELS
    endless: bool = False

    def __init__(self, keys: Sequence[str], name: str = "made"):
        self.keys, self.name, self.made = list(keys), name, 0

    def origin(self) -> dict[str, Any]:
        return {"source": self.name}

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        for key in self.keys:
            if key not in done:
                self.made += 1
                yield make_sample(key, seed=int.from_bytes(key.encode(), "big") % 1000)

    def check(self, store: Store) -> None:
        """Nothing to check."""


def save_decoder(folder: Path, pipeline: Path) -> Path:
    """A decoder with random weights for semantic maps, on the pipeline in a folder."""
    import torch

    from datasetdm.backbones import load_backbone
    from datasetdm.decoder.model import PDecoder

    torch.manual_seed(0)
    backbone = load_backbone(str(pipeline), device="cpu")
    PDecoder.for_backbone(backbone, LABELS, ("semantic",), width=32).save(folder)
    return folder
