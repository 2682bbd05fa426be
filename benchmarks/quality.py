"""What filters gain: labels of generated images against the oracle, those that are kept and those that are dropped.

    python -m benchmarks.quality --json PATH [--count N] [--edits N] [--llm PROMPTS.jsonl] [--plot SVG]

Generates images for captions of the val renders (every choice) and of the test renders (measured once). The work folder
(PATH.work) keeps the latents, so that the same command goes on where it was stopped. A filter keeps the labelled pixels of the
samples that it accepts; `yield` is their fraction of all labelled pixels, `gain` is `kept_miou` - `all_miou`.

`edit_*` are the figures of `benchmarks.edits`. `diversity` compares prompts of every source at equal count: class names, the
grammar of scenes learnt from the labelled renders, and a language model's if a file of them is given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from miniworld.score.oracle import load_oracle
from safetensors.torch import load_file, save_file

from benchmarks import edits
from benchmarks.common import TEST, VAL, stamp
from benchmarks.generated import oracle_maps
from datasetdm.backbones import Backbone
from datasetdm.decoder.model import load_pair
from datasetdm.io.files import atomic, write_json
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.prompts import PromptFile, PromptRow, asked_labels
from datasetdm.prompts.scene_grammar import ClassNames, SceneGrammar
from datasetdm.prompts.scenes import CoOccurrence, SceneSampler
from datasetdm.prompts.spread import Embedding, choose, diversity
from datasetdm.quality.checks import Made, agreement
from datasetdm.quality.copies import FilterCopies
from datasetdm.quality.limbs import FilterByLimbs
from datasetdm.readers import read
from datasetdm.records import IGNORE, Prompt, Sample
from datasetdm.transforms import Transform
from datasetdm.transforms.duplicates import FilterDuplicates
from datasetdm.transforms.images import FilterByClipping, FilterByContrast
from datasetdm.transforms.objects import FilterByArea, FilterByBoundary, FilterFragments
from datasetdm.transforms.prompted import FilterByPrompt
from datasetdm.transforms.threshold import FilterByConfidence, MaskByConfidence

SEED, BATCH = 19, 10
PROMPTS, CANDIDATES = 400, 3
"""Prompts per source, and how many the grammar composes for each one that it keeps."""
LEAST_YIELD = 0.65
"""Of a threshold that is chosen on val; the target on test is 0.6."""
THRESHOLDS = [round(0.3 + 0.05 * i, 2) for i in range(14)]
"""Of the curves."""
FILTERS: list[Transform] = [
    FilterByConfidence(minimum=0.6), FilterByPrompt(), FilterByArea(minimum=0.002), FilterFragments(), FilterByBoundary(),
    FilterByLimbs(data="mini:train"), FilterByContrast(), FilterByClipping(), FilterCopies(data="mini:train"),
    FilterDuplicates(),
]  # fmt: skip
"""Each at its defaults, or at a value that rejects some samples."""


class CachedSampling:
    """A backbone whose sampled latents lie in a folder."""

    def __init__(self, backbone: Backbone, folder: Path):
        self._backbone, self._folder = backbone, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def sample(self, prompts: Sequence[Prompt], steps: int, guidance: float, negative: Any = "") -> torch.Tensor:
        """Latents of new images, sampled once."""
        what = json.dumps([self._backbone.identity, [(p.text, p.seed) for p in prompts], steps, guidance])
        path = self._folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.safetensors"
        if not path.exists():
            latents = self._backbone.sample(prompts, steps, guidance, negative)
            with atomic(path) as temporary:
                save_file({"latents": latents.contiguous()}, temporary)
        return load_file(path)["latents"]


@dataclass
class Judged:
    """Generated samples, what the oracle says of them u16[n h w], and the agreement with their mirror images f[n h w]."""

    samples: list[Sample]
    oracle: np.ndarray
    agreed: np.ndarray

    def figures(self, kept: np.ndarray) -> dict[str, float]:
        """Of the kept pixels bool[n h w]."""
        ids = np.stack([s.semantic.ids for s in self.samples if s.semantic is not None])
        labelled = ids != IGNORE
        every, some, rest = (miou(ids, self.oracle, labelled & k) for k in (np.ones_like(kept), kept, ~kept))
        return {
            "kept_miou": some,
            "dropped_miou": rest,
            "all_miou": every,
            "yield": float((labelled & kept).sum() / labelled.sum()),
            "gain": some - every,
        }

    def filtered(self, transform: Transform) -> dict[str, float]:
        """Of what a transform leaves."""
        found = [(s, s.semantic) for s in transform(self.samples)]
        return self.figures(np.stack([(m.ids != IGNORE) & s.accepted for s, m in found if m is not None]))


def miou(own: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    """Mean IoU over the labels that occur; 0 where no pixel is left."""
    n = int(max(own[where].max(initial=0), true[where].max(initial=0))) + 1
    table = np.bincount(true[where].astype(int) * n + own[where], minlength=n * n).reshape(n, n)
    either = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal()[either > 0] / either[either > 0]).mean()) if either.any() else 0.0


def generated(data: str, count: int, work: Path) -> Judged:
    """Images for the captions of a split."""
    captions = [s.caption for s in islice(read(data), count)]
    decoder, backbone = load_pair()
    seen: list[np.ndarray] = []

    class Agreement:
        """Keeps the agreement with the mirror images."""

        def to_json(self) -> dict[str, Any]:
            return {}

        def __call__(self, samples: Sequence[Sample], made: Made) -> list[Sample]:
            seen.extend(agreement(made))
            return list(samples)

    cached: Any = CachedSampling(backbone, work)
    generator = DatasetGenerator(
        captions, decoder=decoder, backbone=cached, seed=SEED, batch=min(BATCH, count), checks=[Agreement()]
    )
    samples = list(islice(generator.samples(), count))
    oracle = np.stack([m.ids for m in oracle_maps(load_oracle(), [s.image for s in samples])])
    return Judged(samples, oracle, np.stack(seen[:count]))


def curve(figures: Callable[[float], dict[str, float]]) -> list[dict[str, float]]:
    """Figures over thresholds."""
    return [{"threshold": t, **figures(t)} for t in THRESHOLDS]


def best_threshold(points: Sequence[Mapping[str, float]]) -> float:
    """The threshold of the largest gain among those that keep enough."""
    enough = [p for p in points if p["yield"] >= LEAST_YIELD] or points[:1]
    return max(enough, key=lambda p: p["gain"])["threshold"]


def measure(count: int, work: Path) -> dict[str, Any]:
    """All figures: curves, single filters and the choice on val, the chosen threshold on test."""
    val = generated(VAL, count, work)
    curves = {
        "mask-by-confidence": curve(lambda t: val.filtered(MaskByConfidence(minimum=t))),
        "flip-consistency": curve(lambda t: val.figures(val.agreed >= t)),
    }
    chosen, flip = best_threshold(curves["mask-by-confidence"]), best_threshold(curves["flip-consistency"])
    masked = replace(val, samples=list(MaskByConfidence(minimum=chosen)(val.samples)))
    confident = np.stack([s.semantic.ids != IGNORE for s in masked.samples if s.semantic is not None])
    singles = {t.name: val.filtered(t) for t in FILTERS}
    both = val.figures(confident & (val.agreed >= flip))
    test = generated(TEST, count, work)
    return {
        "images": count,
        "threshold": chosen,
        **test.filtered(MaskByConfidence(minimum=chosen)),
        "val": {"filters": singles, "curves": curves, "flip_threshold": flip, "confidence_and_flip": both},
    }


def diversities(count: int, llm: Path | None, embedding: Embedding) -> dict[str, dict[str, float | int]]:
    """How diverse prompts are, by source, at equal count: that of the language model's file if there is one.

    Args:
        count: prompts per source, at most.
        llm: a file of prompts.
        embedding: what prompts are compared by.
    """
    data = read("mini:train")
    labels = data.labels
    scenes = SceneSampler(labels, CoOccurrence.learn(data))
    written = [*islice(PromptFile(llm), count)] if llm else []
    count = len(written) or count
    composed, single = SceneGrammar(scenes), ClassNames(scenes)
    rows: dict[str, list[PromptRow]] = {
        "names": [single.row(i) for i in range(count)],
        "grammar": choose([composed.row(i, SEED) for i in range(CANDIDATES * count)], count, embedding),
        **({"llm": written} if written else {}),
    }
    shown = {
        name: [r.model_copy(update={"labels": asked_labels(r, r.prompt, labels)}) for r in own]
        for name, own in rows.items()
    }
    return {name: diversity(own, (*scenes.things, *scenes.stuff), embedding) for name, own in shown.items()}


def plot(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """The mIoU of kept labels over the yield, as SVG."""
    colours, low, high = ("#2563eb", "#d97706"), 0.3, 0.55

    def place(point: Mapping[str, float]) -> str:
        return f"{60 + 500 * point['yield']:.1f},{20 + 300 * (high - point['kept_miou']) / (high - low):.1f}"

    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 370" font-family="sans-serif" font-size="13">']
    parts.append('<rect width="600" height="370" fill="white"/><path d="M60 20V320H560" fill="none" stroke="#555"/>')
    for i in range(6):
        x, y = 0.2 * i, low + i * (high - low) / 5
        parts.append(f'<text x="{60 + 500 * x:.0f}" y="338" text-anchor="middle">{x:.1f}</text>')
        parts.append(f'<text x="52" y="{324 - 60 * i}" text-anchor="end">{y:.2f}</text>')
    parts.append('<text x="310" y="360" text-anchor="middle">yield: labelled pixels kept</text>')
    parts.append('<text x="66" y="16">mIoU of kept labels</text>')
    for i, ((name, points), colour) in enumerate(zip(curves.items(), colours, strict=True)):
        line = " ".join(place(p) for p in points if p["yield"] > 0.1)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="420" y="{40 + 20 * i}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="images per split")
    parser.add_argument("--plot", type=Path, help="an SVG file for the curves")
    parser.add_argument("--edits", type=int, default=100, help="edits that are measured; 0 leaves them out")
    parser.add_argument("--edit-steps", type=int, help="sampling steps of edits; default the model's")
    parser.add_argument(
        "--llm", type=Path, help="prompts of a language model, as `datasetdm prompts --source llm` writes them"
    )
    parser.add_argument("--embedding", choices=["ngrams", "minilm"], default="ngrams", help="of the prompts")
    asked = parser.parse_args(arguments)
    work = asked.json.with_suffix(".json.work")
    found = measure(asked.count, work)
    if asked.edits:
        figures = edits.measure(asked.edits, 0, *load_pair("mini"), load_oracle(), work / "edits", asked.edit_steps)
        found |= {name if name.startswith("edit_") else f"edit_{name}": value for name, value in figures.items()}
    found["diversity"] = diversities(PROMPTS, asked.llm, asked.embedding)
    write_json(asked.json, {**found, **stamp([SEED])})
    if asked.plot:
        plot(found["val"]["curves"], asked.plot)
    print(json.dumps({k: v for k, v in found.items() if k != "val"}, indent=2))


if __name__ == "__main__":
    main()
