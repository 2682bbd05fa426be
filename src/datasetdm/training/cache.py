"""Augmented variants of labelled pictures and their features, computed once and kept on disk, one file a variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement
from datasetdm.backbones.features import NAMED
from datasetdm.decoder.model import PDecoder, read_latents
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.errors import DataError
from datasetdm.io.files import safe_name
from datasetdm.records import Sample
from datasetdm.training.augment import augment

TEXT = "text.safetensors"


@dataclass
class FeatureCache:
    """`variants` views of every sample (the first is the sample itself), in `folder`.

    Args:
        batch: pictures that go through the backbone at a time.
        caption_dropout: share of views that are read under no caption.
    """

    samples: Sequence[Sample]
    decoder: PDecoder
    folder: Path
    variants: int
    batch: int
    caption_dropout: float
    seed: int

    def __post_init__(self) -> None:
        self._jobs = [(v, i) for v in range(self.variants) for i in range(len(self.samples))]
        names = [f"{i:05d}-{safe_name(self.samples[i].key)}-{v:02d}" for v, i in self._jobs]
        self.files = [self.folder / f"{name}.safetensors" for name in names]

    def fill(self, backbone: Backbone) -> Iterator[tuple[int, int]]:
        """Make the files that are missing; yields (done, total). Only maps that the decoder reads are kept."""
        used = {name for name, _ in self.decoder.normalisers()} | {NAMED}
        for start in range(0, len(self._jobs), self.batch):
            chunk = range(start, min(start + self.batch, len(self._jobs)))
            if not all(self.files[k].exists() for k in chunk):
                views = [self._view(*self._jobs[k]) for k in chunk]
                latents = backbone.encode(torch.cat([v[0] for v in views]))
                captions, labels = [v[2] for v in views], self.decoder.config.labels
                f = read_latents(backbone, latents, captions, labels)
                if not (self.folder / TEXT).exists():
                    _check_words(f.text, self.decoder.config.labels.names)
                    save_tensors(self.folder / TEXT, {"text": f.text.float()})
                for row, k in enumerate(chunk):
                    maps = {f"map.{n}": x[row].half() for n, x in f.maps.items() if n in used}
                    save_tensors(self.files[k], maps | views[row][1])
            yield chunk.stop, len(self._jobs)

    def text(self, device: torch.device) -> Tensor:
        """What the labels mean, f[l d]."""
        return load_file(self.folder / TEXT)["text"].to(device)

    def measure(self) -> None:
        """Standardise every feature over about 64 of the views."""
        rows = [load_file(f) for f in self.files[:: max(1, len(self.files) // 64)]]
        for name, module in self.decoder.normalisers():
            module.measure([r[f"map.{name}"] for r in rows])

    def _view(self, variant: int, index: int) -> tuple[Tensor, dict[str, Tensor], str]:
        """One view f[1 3 H W], its target maps f[h w] at the decoder's finest stride, and its caption."""
        sample, side = self.samples[index], self.decoder.config.side
        place = Placement.fit(sample.size, (side, side))
        image, maps = place.image(sample.image), target_maps(self.decoder, sample, place)
        rng = np.random.default_rng((self.seed, variant, index))
        if variant:
            image, maps, zoom = augment(image, maps, seed=int(rng.integers(2**31)))
            for name, task in self.decoder.tasks.items():
                for key in task.blank():
                    maps[f"target.{name}.{key}"] = task.zoomed(key, maps[f"target.{name}.{key}"], zoom)
        finest = (side // min(self.decoder.pixels.widths),) * 2
        small = {k: F.interpolate(m, finest, mode="nearest-exact")[0, 0] for k, m in maps.items()}
        return image, small, "" if rng.random() < self.caption_dropout else sample.caption


def _check_words(text: Tensor, names: Sequence[str]) -> None:
    """Refuse labels that the text encoder cannot tell apart: no decoder could."""
    alike = (torch.cdist(text.float(), text.float()) < 1e-6).triu(1).nonzero().tolist()
    if alike:
        pairs = ", ".join(f"{names[a]!r} and {names[b]!r}" for a, b in alike)
        raise DataError(
            f"the text encoder reads labels as the same words: {pairs}",
            expected="labels whose words it tells apart",
            remedy="rename one of them",
        )


def target_maps(decoder: PDecoder, sample: Sample, place: Placement) -> dict[str, Tensor]:
    """Every task's target maps f[1 1 H W] on the canvas, as `target.TASK.KEY`; blank where the sample has no label."""
    maps = {}
    for name, task in decoder.tasks.items():
        own = task.target(sample)
        for key, blank in task.blank().items():
            values = np.full(sample.size, blank, np.float32) if own is None else own[key]
            maps[f"target.{name}.{key}"] = place.map(values, blank)
    return maps


def load_batch(files: Sequence[Path], device: torch.device) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Feature maps f[b ...], and targets f[b h w] by task."""
    rows = [load_file(f) for f in files]
    stacked = {k: torch.stack([r[k] for r in rows]).to(device) for k in rows[0]}
    maps = {k.removeprefix("map."): v for k, v in stacked.items() if k.startswith("map.")}
    return maps, by_task({k: v for k, v in stacked.items() if k.startswith("target.")})


def by_task(targets: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`target.TASK.KEY` as {TASK: {KEY: ...}}."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in targets.items():
        _, task, name = key.split(".", 2)
        found.setdefault(task, {})[name] = value
    return found
