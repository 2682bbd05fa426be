"""How long annotating takes beside drawing."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from datasetdm.decoder.model import PDecoder
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.prompts.grammar import Grammar

SEED = 0


def speed(pairs: int, decoder: str | Path | PDecoder = "mini") -> dict[str, Any]:
    """Batches of 16 in turn, plain and annotated, of the same prompts and seeds; the median of the paired ratios."""
    generator = DatasetGenerator(Grammar.load().compose(16, SEED), decoder=decoder, batch=16, seed=SEED)
    backbone: Any = generator.backbone
    prompts = [generator.prompt(i) for i in range(16)]

    def plain() -> None:
        backbone.pipe(
            [p.text for p in prompts],
            num_inference_steps=generator.steps,
            guidance_scale=generator.guidance,
            height=backbone.size[0],
            width=backbone.size[1],
            generator=[torch.Generator("cpu").manual_seed(p.seed) for p in prompts],
        )

    times: dict[str, list[float]] = {"plain": [], "annotated": []}
    for k in range(pairs + 1):
        for name, call in (("plain", plain), ("annotated", lambda: generator.batch(0))):
            start = time.perf_counter()
            call()
            if k:  # the first pair warms up
                times[name].append(time.perf_counter() - start)
    ratios = [p / a for p, a in zip(times["plain"], times["annotated"], strict=True)]
    return {
        "ratio_annotated_to_plain": statistics.median(ratios),
        "ratios": [round(r, 3) for r in ratios],
        "plain_per_second": 16 / statistics.median(times["plain"]),
        "annotated_per_second": 16 / statistics.median(times["annotated"]),
    }
