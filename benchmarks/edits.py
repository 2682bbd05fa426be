"""Whether edits show what they should: `python -m benchmarks.edits --json PATH`, judged by the oracle of `miniworld`.

Images are generated from the grammar's prompts; every thing in them is replaced by another one that is found at the same places
(boats, which have the sea for themselves, by bottles). The same edited prompts are also generated from nothing ("fresh"), which
says what the generator can show at all. The work folder (PATH.work) keeps all images, so that the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from miniworld.score.oracle import Oracle, load_oracle, look
from torch.nn import functional as F

from benchmarks.common import stamp
from benchmarks.fitting import InMemoryReader
from benchmarks.generated import agreement
from datasetdm.backbones import Backbone
from datasetdm.backbones.canvas import Placement, stack_images, to_uint8
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.engines.local import write
from datasetdm.io.files import write_json
from datasetdm.pipelines.edit import Editor, grow, pixels_of, plan_edit
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.settings import EditConfig
from datasetdm.pipelines.stream import Data
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import CLASSES
from datasetdm.records import Labels, Sample
from datasetdm.store.store import Store

LAST_THING = 20
"""The largest class id of a thing."""
BATCH, MOST = 16, 10
"""Images that are generated at a time until there are enough to edit, and at most, in units of the edits."""
RESAMPLES, INTERVAL = 2000, (2.5, 97.5)
"""Of the bootstrap, and its percentiles."""


def partners(grammar: Grammar) -> dict[str, str]:
    """For every thing the one that shares most places with it; the next in the alphabet of several."""
    at: dict[str, set[str]] = {}
    for place, content in grammar.places.items():
        for thing in content["things"]:
            at.setdefault(thing, set()).add(place)
    names = sorted(at)

    def nearness(thing: str, other: str) -> tuple[int, int]:
        return len(at[thing] & at[other]), -((names.index(other) - names.index(thing)) % len(names))

    return {t: max((o for o in names if o != t), key=lambda o, t=t: nearness(t, o)) for t in names}


def found_in(things: Mapping[str, np.ndarray], region: np.ndarray, asked: Iterable[str]) -> list[bool]:
    """Of every label asked for, whether it is the thing that the oracle sees most of in the region.

    Args:
        things: by name, the oracle's probability at every pixel f[h w].
        region: bool[h w].
        asked: names of things.
    """
    seen = {name: float(p[region].sum()) for name, p in things.items()}
    best = max(seen, key=lambda name: seen[name]) if region.any() else ""
    return [name == best for name in asked]


def oracle_things(oracle: Oracle, images: Sequence[np.ndarray], labels: Labels) -> list[dict[str, np.ndarray]]:
    """Of every image, by name of the things, the oracle's probability at every pixel f[h w]."""
    pixels = torch.from_numpy(np.stack(images)).movedim(-1, 1)
    own = look(oracle, pixels).classes.softmax(1)[:, list(CLASSES)]
    full = F.interpolate(own, pixels.shape[-2:], mode="bilinear", align_corners=False).numpy()
    ids = {n: labels.index[n] for i, n in CLASSES.items() if i <= LAST_THING}
    return [{n: x[i] for n, i in ids.items()} for x in full]


def measure(
    count: int,
    seed: int,
    decoder: PDecoder,
    backbone: Backbone,
    oracle: Oracle,
    work: Path,
    steps: int | None = None,
) -> dict[str, Any]:
    """All figures of `count` edits. `work` keeps the images, so that a run that was stopped goes on."""
    grammar = Grammar.load()
    swap = partners(grammar)
    settings: dict[str, Any] = {"decoder": decoder, "backbone": backbone, "steps": steps}
    config = EditConfig(replace=swap, seed=seed, steps=steps)
    source, parents = DatasetGenerator(grammar, seed=seed, **settings), list[Sample]()
    for wanted in range(count, MOST * count, BATCH):
        write(source, work / "parents", wanted)
        parents = [s for s in Store(work / "parents") if plan_edit(s, config)][:count]
        if len(parents) == count:
            break
    plans = [plan_edit(parent, config) for parent in parents]
    captions = [plan.prompt.text for plan in plans if plan]
    write(DatasetGenerator(captions, seed=seed + 1, **settings), work / "fresh", len(captions))
    reader = InMemoryReader(parents, decoder.config.labels)
    editor = Editor(Data(reader), **config.model_dump(exclude={"steps"}), **settings)
    write(editor, work / "edited")
    edited, fresh = list(Store(work / "edited")), list(Store(work / "fresh"))
    margin = round(config.margin * max(backbone.size))
    hits: dict[str, list[list[bool]]] = {"edited": [], "fresh": []}
    labels, change, decoded, areas = list[list[str]](), list[float](), list[float](), list[float]()
    seen = {
        name: oracle_things(oracle, [s.image for s in samples], editor.labels)
        for name, samples in (("edited", edited), ("fresh", fresh))
    }
    for i, (parent, plan, own, other) in enumerate(zip(parents, plans, edited, fresh, strict=True)):
        assert plan is not None
        region = grow(torch.from_numpy(plan.region)[None], margin)[0].numpy()
        old = {n for n in swap if n in {parent.labels.names[k] for k in parent.annotations.labels_in()}}
        labels.append(asked := sorted({swap[n] for n in old} & {*plan.prompt.labels}))
        hits["edited"].append(found_in(seen["edited"][i], region, asked))
        there = grow(torch.from_numpy(pixels_of(other, {*asked}))[None], margin)[0].numpy()
        hits["fresh"].append(found_in(seen["fresh"][i], there, asked))
        areas.append(float(region.mean()))
        if not region.all():
            change.append(float(np.abs(own.image.astype(int) - parent.image)[~region].mean()))
            decoded.append(_decoded_change(backbone, parent, region))
    return {
        **found_rates(hits["edited"], hits["fresh"]),
        "by_label": found_by_label(labels, hits),
        "edit_outside_change": float(np.mean(change)) / 255,
        "vae_outside_change": float(np.mean(decoded)) / 255,
        "edit_miou": agreement(edited, oracle)["miou"],
        "fresh_miou": agreement(fresh, oracle)["miou"],
        "edits": len(edited),
        "region_area": float(np.mean(areas)),
        "labels_asked": sum(map(len, hits["edited"])),
    }


def found_rates(edited: Sequence[Sequence[bool]], fresh: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """How many of the asked labels were found, per image; their ratio, and 95 % intervals over resampled images."""
    asked = np.array([len(own) for own in edited])
    found = np.array([[sum(own), sum(other)] for own, other in zip(edited, fresh, strict=True)])
    rows = np.random.default_rng(0).integers(0, len(asked), (RESAMPLES, len(asked)))
    rates = found[rows].sum(1) / asked[rows].sum(1, keepdims=True).clip(1)
    own, other = (found.sum(0) / asked.sum()).tolist()
    ratios = rates[:, 0] / rates[:, 1].clip(1 / asked.sum())
    return {
        "edit_found": own,
        "edit_found_interval": np.percentile(rates[:, 0], INTERVAL).tolist(),
        "fresh_found": other,
        "found_ratio": own / max(other, 1 / asked.sum()),
        "found_ratio_interval": np.percentile(ratios, INTERVAL).tolist(),
    }


def found_by_label(
    asked: Sequence[Sequence[str]], hits: Mapping[str, Sequence[Sequence[bool]]]
) -> dict[str, dict[str, int]]:
    """Of every label how often it was asked for, and how often it was found in each kind of images."""
    names = [name for own in asked for name in own]
    found = {kind: Counter(compress(names, chain.from_iterable(rows))) for kind, rows in hits.items()}
    return {name: {"asked": n} | {kind: c[name] for kind, c in found.items()} for name, n in Counter(names).items()}


def _decoded_change(backbone: Backbone, parent: Sample, region: np.ndarray) -> float:
    """What encoding and decoding alone changes outside the region."""
    place = Placement.fit(parent.size, backbone.size)
    image = backbone.decode(backbone.encode(stack_images([parent.image], [place])))
    again = to_uint8(F.interpolate(image.float().cpu(), parent.size))[0]
    return float(np.abs(again.astype(int) - parent.image)[~region].mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    options = parser.parse_args(arguments)
    work = options.json.with_suffix(".json.work")
    figures = measure(options.count, options.seed, *load_pair("mini"), load_oracle(), work, options.steps)
    write_json(options.json, figures | stamp([options.seed]))
    print(figures)


if __name__ == "__main__":
    main()
