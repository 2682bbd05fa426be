"""Labels that the fit never saw: a third of the things is unknown in the 100 images and asked for in new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.baselines import attention
from benchmarks.fitting import InMemoryReader, fit, kept_meter, known_mean
from datasetdm.backbones import Backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.pipelines.fit import FitConfig
from datasetdm.records import IGNORE, Labels, Sample
from datasetdm.records.edits import ignore_pixels, relabel

FOLDS = 3


def unseen_things(labels: Labels, seed: int) -> tuple[str, ...]:
    """Every third thing, from another one on for each of three seeds, so that every thing is unseen once."""
    return tuple(n for n in labels.names if n not in labels.stuff)[seed % FOLDS :: FOLDS]


def seen_only(samples: Sequence[Sample], unseen: Sequence[str]) -> InMemoryReader:
    """The samples' semantic maps with a vocabulary that lacks the unseen labels, whose pixels are ignored."""
    labels = samples[0].labels
    names = [n for n in labels.names if n not in unseen]
    stuff = tuple(n for n in labels.stuff if n not in unseen)
    known = Labels(tuple(names), tuple(labels.synonyms[labels.index[n]] for n in names), stuff)
    new_ids = [known.index.get(n, IGNORE) for n in labels.names]
    return InMemoryReader([relabel(_semantic_only(s), known, new_ids) for s in samples], known)


def _semantic_only(sample: Sample) -> Sample:
    return replace(sample, instances=None, depth=None, keypoints=None)


def harmonic(iou: np.ndarray, labels: Labels, unseen: Sequence[str]) -> dict[str, float]:
    """Mean IoU over seen things, over unseen ones, their harmonic mean; `_all`: surroundings among the seen."""
    new = np.array([n in unseen for n in labels.names])
    stuff = np.array([n in labels.stuff for n in labels.names])
    seen, all_seen, never = known_mean(iou[~new & ~stuff]), known_mean(iou[~new]), known_mean(iou[new])
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
    """The attention map alone, used in the way that does best on the seen labels of the 100 images."""
    labels = train[0].labels
    unseen = unseen_things(labels, seed)
    new = [labels.index[n] for n in unseen]

    def hidden(s: Sample) -> Sample:
        assert s.semantic
        return ignore_pixels(_semantic_only(s), np.isin(s.semantic.ids, new))

    way = attention.choose_way(backbone, [hidden(s) for s in train], labels.names)
    meter = attention.measure(backbone, test, labels.names, way)
    return {**harmonic(meter.iou(), labels, unseen), "way": str(way)}


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
