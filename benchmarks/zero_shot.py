"""Labels that the fit never saw: a third of the things is unknown in the 100 pictures and asked for in new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from baselines import attention
from fitting import Given, fit, kept_meter, share

from datasetdm.backbones import Backbone
from datasetdm.evaluate import evaluate
from datasetdm.fit import FitConfig
from datasetdm.model import PDecoder
from datasetdm.types import IGNORE, Labels, Sample, SemanticMap

FOLDS = 3


def unseen_things(labels: Labels, seed: int) -> tuple[str, ...]:
    """Every third thing, from another one on for each of three seeds, so that every thing is unseen once."""
    return tuple(n for n in labels.names if n not in labels.stuff)[seed % FOLDS :: FOLDS]


def seen_only(samples: Sequence[Sample], unseen: Sequence[str]) -> Given:
    """The samples' semantic maps with a vocabulary that lacks the unseen labels, whose pixels are ignored."""
    labels = samples[0].labels
    names = [n for n in labels.names if n not in unseen]
    table = np.full(IGNORE + 1, IGNORE, np.uint16)
    table[[labels.names.index(n) for n in names]] = range(len(names))
    stuff = tuple(n for n in labels.stuff if n not in unseen)
    known = Labels(tuple(names), tuple(labels.synonyms[labels.names.index(n)] for n in names), stuff)
    maps = (SemanticMap(table[s.annotations["semantic"].ids]) for s in samples)
    rows = [replace(s, labels=known, annotations={"semantic": m}) for s, m in zip(samples, maps, strict=True)]
    return Given(rows, known)


def harmonic(iou: np.ndarray, labels: Labels, unseen: Sequence[str]) -> dict[str, float]:
    """Mean IoU over seen things, over unseen ones, their harmonic mean; `_all`: surroundings among the seen."""
    new = np.array([n in unseen for n in labels.names])
    stuff = np.array([n in labels.stuff for n in labels.names])
    seen, all_seen, never = share(iou[~new & ~stuff]), share(iou[~new]), share(iou[new])
    value = {"harmonic": _harmonic(seen, never), "seen": seen, "unseen": never}
    ratio = never / seen if seen else 0.0
    return value | {"unseen_to_seen": ratio, "seen_all": all_seen, "harmonic_all": _harmonic(all_seen, never)}


def ours(
    train: Sequence[Sample], test: Sequence[Sample], out: Path, backbone: Backbone, config: FitConfig
) -> dict[str, float]:
    """A P-Decoder fitted without the unseen things, asked for all labels."""
    labels = train[0].labels
    unseen = unseen_things(labels, config.seed)
    fit(seen_only(train, unseen), out, backbone, config.model_copy(update={"tasks": ("semantic",)}))
    decoder = PDecoder.load(out).to(backbone.device)
    meter = kept_meter(decoder)
    evaluate(decoder, backbone, test, labels=labels)
    return harmonic(meter.iou(), labels, unseen)


def attention_alone(
    train: Sequence[Sample], test: Sequence[Sample], backbone: Backbone, seed: int
) -> dict[str, float | str]:
    """The attention map alone, used in the way that does best on the seen labels of the 100 pictures."""
    labels = train[0].labels
    unseen = unseen_things(labels, seed)
    new = [labels.names.index(n) for n in unseen]

    def hidden(s: Sample) -> Sample:
        ids = np.where(np.isin(s.annotations["semantic"].ids, new), IGNORE, s.annotations["semantic"].ids)
        return replace(s, annotations={"semantic": SemanticMap(ids)})

    way = attention.choose_way(backbone, [hidden(s) for s in train], labels.names)
    meter = attention.measure(backbone, test, labels.names, way)
    return {**harmonic(meter.iou(), labels, unseen), "way": str(way)}


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
