"""Labels of generated images, which have no truth, against the oracle: another network, trained on exact labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from miniworld.score.oracle import Oracle, load_oracle, look
from torch.nn import functional as F

from benchmarks import common  # noqa: F401  (finds the package miniworld)
from datasetdm.backbones import Backbone
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder
from datasetdm.metrics import SemanticMeter
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import CLASSES
from datasetdm.records import Sample, SemanticMap

AGREED = 0.5
"""From this IoU on two masks are the same."""


def oracle_maps(oracle: Oracle, images: Sequence[np.ndarray]) -> list[SemanticMap]:
    """What the oracle, which sees at a quarter of the side, says of images u8[h w 3], at their own size."""
    pixels = torch.from_numpy(np.stack(images)).movedim(-1, 1)
    logits = look(oracle, pixels).classes[:, list(CLASSES)]
    full = F.interpolate(logits, pixels.shape[-2:], mode="bilinear", align_corners=False)
    return [SemanticMap(x.astype(np.uint16)) for x in full.argmax(1).numpy()]


def agreement(samples: Iterable[Sample], oracle: Oracle, batch: int = 64) -> dict[str, float]:
    """Annotated samples against the oracle: mIoU, and of the labels in their prompts the share whose mask agrees.

    hit counts a label that the oracle finds nowhere as missed; hit_where_seen leaves it out.
    """
    meter, overlaps = SemanticMeter(), []
    iterator = iter(samples)
    while chunk := list(islice(iterator, batch)):
        for sample, other in zip(chunk, oracle_maps(oracle, [s.image for s in chunk]), strict=True):
            own = sample.semantic
            assert own is not None
            meter.update(sample, replace(sample, semantic=other))
            overlaps += [_overlap(own.ids, other.ids, sample.labels.index[n]) for n in _asked(sample)]
    hits = np.array(overlaps, float)
    seen = hits[np.isfinite(hits)]
    return {
        "miou": meter.compute()["miou"],
        "hit": float((seen >= AGREED).sum() / max(1, hits.size)),
        "hit_where_seen": float((seen >= AGREED).mean()) if seen.size else float("nan"),
        "prompted": int(hits.size),
    }


def generated_figures(
    decoder: PDecoder, backbone: Backbone, test: Sequence[Sample], count: int, seed: int
) -> dict[str, float]:
    """`generated_miou_gap`: how much lower the mIoU against the oracle is on generated images than on test renders;
    `prompted_label_hit`; and what they come from."""
    oracle = load_oracle()
    prompts = Grammar.load().compose(count, seed)
    generator = DatasetGenerator(prompts, decoder=decoder, backbone=backbone, seed=seed, batch=min(16, count))
    generated = agreement(islice(generator.samples(), count), oracle)
    rendered = agreement((s for _, s in annotate(decoder, backbone, test)), oracle)
    judge = SemanticMeter()
    for sample, said in zip(test, oracle_maps(oracle, [s.image for s in test]), strict=True):
        judge.update(replace(sample, semantic=said), sample)
    return {
        "generated_miou_gap": rendered["miou"] - generated["miou"],
        "prompted_label_hit": generated["hit"],
        "prompts": count,
        **{f"drawn_{k}": v for k, v in generated.items()},
        **{f"rendered_{k}": v for k, v in rendered.items()},
        "oracle_miou": judge.compute()["miou"],
    }


def _asked(sample: Sample) -> tuple[str, ...]:
    return sample.prompt.labels if sample.prompt else ()


def _overlap(own: np.ndarray, other: np.ndarray, label: int) -> float:
    """IoU of a label's masks; NaN where the other has none."""
    a, b = own == label, other == label
    return float((a & b).sum() / (a | b).sum()) if b.any() else float("nan")
