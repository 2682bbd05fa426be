"""The labels' cross-attention maps alone: the label of a pixel is the largest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones import Backbone
from datasetdm.decoder.inference import read_images
from datasetdm.metrics import SemanticMeter
from datasetdm.records import Labels, Sample, SemanticMap


@dataclass(frozen=True)
class Way:
    """How maps become labels.

    name: of the attention map. mean, std: by label, what the maps are standardised with (0 and 1: not at all). mentioned: only
    labels that the caption mentions take part.
    """

    name: str
    mean: Tensor
    std: Tensor
    mentioned: bool

    def __str__(self) -> str:
        standardised = "standardised" if self.mean.any() else "raw"
        return f"{self.name}, {standardised}, {'named' if self.mentioned else 'all'} labels"


def choose_way(backbone: Backbone, train: Sequence[Sample], names: Sequence[str]) -> Way:
    """Of all ways (which stride; maps as they are or standardised over the fitting images; all labels or those that the
    caption mentions) the one with the largest mIoU on the fitting images."""
    best, found = -1.0, None
    for stride in (s.name for s in backbone.specs if s.kind == "attention"):
        maps = torch.cat([m for m, _ in _maps(train, backbone, names, stride)])
        mean, std = maps.mean((0, 2, 3))[:, None, None], maps.std((0, 2, 3))[:, None, None] + 1e-6
        norms = ((torch.zeros_like(mean), torch.ones_like(std)), (mean, std))
        for norm, mentioned in itertools.product(norms, (False, True)):
            way = Way(stride, *norm, mentioned)
            score = _meter(zip(maps.split(1), ([s] for s in train), strict=True), way, names).compute()["miou"]
            if score > best:
                best, found = score, way
    assert found is not None
    return found


def measure(backbone: Backbone, samples: Iterable[Sample], names: Sequence[str], way: Way) -> SemanticMeter:
    """The labels of `samples` by attention, against the truth."""
    return _meter(_maps(samples, backbone, names, way.name), way, names)


def _maps(
    samples: Iterable[Sample], backbone: Backbone, names: Sequence[str], stride: str
) -> Iterator[tuple[Tensor, list[Sample]]]:
    iterator = iter(samples)
    while chunk := list(islice(iterator, 16)):
        inputs, places = read_images(backbone, chunk, Labels(tuple(names)))
        own = inputs.maps[stride].float().mean(2).cpu()
        full = F.interpolate(own, backbone.size, mode="bilinear", align_corners=False)
        if len({p.size for p in places}) == 1:
            yield places[0].undo(full), chunk
        else:
            yield from ((p.undo(x), [s]) for p, x, s in zip(places, full.split(1), chunk, strict=True))


def annotate(
    backbone: Backbone, samples: Iterable[Sample], names: Sequence[str], way: Way
) -> Iterator[tuple[Sample, SemanticMap]]:
    """Samples with their labels by attention."""
    return _label(_maps(samples, backbone, names, way.name), way, names)


def _label(
    batches: Iterable[tuple[Tensor, list[Sample]]], way: Way, names: Sequence[str]
) -> Iterator[tuple[Sample, SemanticMap]]:
    for maps, chunk in batches:
        for score, sample in zip((maps - way.mean) / way.std, chunk, strict=True):
            if way.mentioned and sample.prompt and sample.prompt.labels:
                absent = torch.tensor([n not in sample.prompt.labels for n in names])
                score = score.masked_fill(absent[:, None, None], float("-inf"))
            yield sample, SemanticMap(score.argmax(0).numpy().astype(np.uint16))


def _meter(batches: Iterable[tuple[Tensor, list[Sample]]], way: Way, names: Sequence[str]) -> SemanticMeter:
    meter = SemanticMeter()
    for sample, found in _label(batches, way, names):
        meter.update(replace(sample, semantic=found), sample)
    return meter
