"""Augmented views of labelled images and their features, computed once and kept on disk, one file per view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement, nearest
from datasetdm.decoder.inference import asked_of
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder
from datasetdm.decoder.tasks import Task, Tensors
from datasetdm.decoder.tensor_files import load_tensors, save_tensors
from datasetdm.errors import DataError
from datasetdm.io.files import safe_name
from datasetdm.records import Sample
from datasetdm.training.augment import augment

TEXT = "text.safetensors"

MEASURED_VIEWS = 64
"""Views, about, over which features are standardised."""

SAME_WORDS = 1e-6
"""Text embeddings that are nearer than this cannot be distinguished."""

Targets = Mapping[str, Tensors]
"""Targets by task."""


@dataclass
class FeatureCache:
    """`variants` views of every sample (the first is the sample itself), in `folder`.

    Args:
        batch: images that go through the backbone at a time.
        caption_dropout: probability that a view is read without its caption.
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
        labels = self.decoder.config.labels
        for start in range(0, len(self._jobs), self.batch):
            chunk = range(start, min(start + self.batch, len(self._jobs)))
            if not all(self.files[k].exists() for k in chunk):
                images, targets, captions = zip(*(self._view(*self._jobs[k]) for k in chunk), strict=True)
                features = backbone.features(backbone.encode(torch.cat(images)), captions, labels.names)
                kept, samples = backbone.kept_texts(captions), [self.samples[self._jobs[k][1]] for k in chunk]
                asked = [asked_of(s, text, labels) for s, text in zip(samples, kept, strict=True)]
                inputs = DecoderInput.from_features(features, kept, labels, asked)
                if not (self.folder / TEXT).exists():
                    _check_words(inputs.text, labels.names)
                    save_tensors(self.folder / TEXT, {"text": inputs.text.float()})
                for row, k in enumerate(chunk):
                    self._save(self.files[k], inputs, row, targets[row])
            yield chunk.stop, len(self._jobs)

    def load(self, rows: Sequence[int], device: torch.device) -> tuple[DecoderInput, Targets]:
        """A batch of views, by their place in `files`."""
        found = [load_tensors(self.files[k]) for k in rows]
        both = {k: torch.stack([f[k] for f in found]).to(device) for k in found[0]}
        inputs = DecoderInput({n: both[f"map.{n}"] for n in self._maps}, self._text.to(device), both["mentioned"])
        targets = {}
        for name, task in self.decoder.tasks.items():
            kind = task.fill_values()
            targets[name] = type(kind)(**{key: both[f"target.{name}.{key}"] for key in kind.named()})
        return inputs, targets

    def measure(self) -> None:
        """Standardise every feature over about `MEASURED_VIEWS` of the views."""
        rows = [load_tensors(f) for f in self.files[:: max(1, len(self.files) // MEASURED_VIEWS)]]
        for name, module in self.decoder.normalisers():
            module.measure([r[f"map.{name}"] for r in rows])

    @cached_property
    def _maps(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.decoder.normalisers())

    @cached_property
    def _text(self) -> Float[Tensor, "l d"]:
        return load_tensors(self.folder / TEXT)["text"]

    def _save(self, path: Path, inputs: DecoderInput, row: int, targets: Targets) -> None:
        assert inputs.mentioned is not None
        tensors = {f"map.{n}": inputs.maps[n][row].half() for n in self._maps} | {"mentioned": inputs.mentioned[row]}
        for name, target in targets.items():
            tensors |= {f"target.{name}.{key}": value for key, value in target.named().items()}
        save_tensors(path, tensors)

    def _view(self, variant: int, index: int) -> tuple[Float[Tensor, "1 3 H W"], Targets, str]:
        """One view, its targets [h w] at the decoder's finest stride, and its caption."""
        sample, side, tasks = self.samples[index], self.decoder.config.side, self.decoder.tasks
        place = Placement.fit(sample.size, (side, side))
        image, targets = place.image(sample.image), {n: place_target(t, sample, place) for n, t in tasks.items()}
        rng = np.random.default_rng((self.seed, variant, index))
        if variant:
            maps = [x for target in targets.values() for x in target.named().values()]
            image, maps, zoom = augment(image, maps, seed=int(rng.integers(2**31)))
            moved = iter(maps)
            targets = {n: tasks[n].rescale_target(t.map(lambda _: next(moved)), zoom) for n, t in targets.items()}
        finest = (side // min(self.decoder.pixels.widths),) * 2
        small = {n: t.map(lambda x: nearest(x, finest)) for n, t in targets.items()}
        return image, small, "" if rng.random() < self.caption_dropout else sample.caption


def place_target(task: Task[Any, Any, Any], sample: Sample, place: Placement) -> Tensors:
    """A task's target on the canvas, [H W]; unknown in the margin, and everywhere if the sample has no such label."""
    fill: Tensors = task.fill_values()
    target = task.target(sample) or fill.map(lambda x: x.expand(*x.shape[:-2], *sample.size))
    return target.map(lambda x, unknown: place.map(x, float(unknown.flatten()[0])), fill)


def _check_words(text: Float[Tensor, "l d"], names: Sequence[str]) -> None:
    """Refuse labels that the text encoder cannot distinguish: no decoder could."""
    alike = (torch.cdist(text.float(), text.float()) < SAME_WORDS).triu(1).nonzero().tolist()
    if alike:
        pairs = ", ".join(f"{names[a]!r} and {names[b]!r}" for a, b in alike)
        raise DataError(
            f"the text encoder reads labels as the same words: {pairs}",
            expected="labels with different embeddings",
            remedy="rename one of them",
        )
