"""Whether edits show what they should: `python -m benchmarks.edits --json PATH`, judged by the oracle of `miniworld`.

Images are generated from the grammar's prompts; every thing in them is replaced by another one that is found at the same places.
The same edited prompts are also generated from nothing ("fresh"), which says what the generator can show at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
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
from datasetdm.io.files import write_json
from datasetdm.pipelines.edit import Editor, grow, pixels_of, plan_edit
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.pipelines.stream import Data
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import CLASSES
from datasetdm.records import Labels, Sample

LAST_THING = 20
"""The largest class id of a thing."""


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
    count: int, seed: int, decoder: PDecoder, backbone: Backbone, oracle: Oracle, steps: int | None
) -> dict[str, Any]:
    """All figures of `count` edits."""
    grammar = Grammar.load()
    swap = partners(grammar)
    settings: dict[str, Any] = {"decoder": decoder, "backbone": backbone, "steps": steps}
    source = DatasetGenerator(grammar, seed=seed, **settings).samples()
    parents: list[Sample] = []
    editor = Editor(Data(InMemoryReader(parents, decoder.config.labels)), replace=swap, seed=seed, **settings)
    parents += islice((s for s in source if plan_edit(s, editor.config)), count)
    edited = list(editor.samples())
    fresh = list(islice(DatasetGenerator([s.caption for s in edited], seed=seed + 1, **settings).samples(), count))
    margin = round(editor.config.margin * max(backbone.size))
    hits: dict[str, list[bool]] = {"edited": [], "fresh": []}
    change, decoded = [], []
    seen = {
        name: oracle_things(oracle, [s.image for s in samples], editor.labels)
        for name, samples in (("edited", edited), ("fresh", fresh))
    }
    for i, (parent, own, other) in enumerate(zip(parents, edited, fresh, strict=True)):
        plan = plan_edit(parent, editor.config)
        assert plan is not None and own.prompt is not None
        region = grow(torch.from_numpy(plan.region)[None], margin)[0].numpy()
        old = {n for n in swap if n in {parent.labels.names[k] for k in parent.annotations.labels_in()}}
        asked = sorted({swap[n] for n in old} & {*own.prompt.labels})
        hits["edited"] += found_in(seen["edited"][i], region, asked)
        there = grow(torch.from_numpy(pixels_of(other, {*asked}))[None], margin)[0].numpy()
        hits["fresh"] += found_in(seen["fresh"][i], there, asked)
        change.append(np.abs(own.image.astype(int) - parent.image)[~region].mean())
        decoded.append(_decoded_change(backbone, parent, region))
    return {
        "edit_found": float(np.mean(hits["edited"])),
        "fresh_found": float(np.mean(hits["fresh"])),
        "edit_outside_change": float(np.mean(change)) / 255,
        "vae_outside_change": float(np.mean(decoded)) / 255,
        "edit_miou": agreement(edited, oracle)["miou"],
        "fresh_miou": agreement(fresh, oracle)["miou"],
        "edits": len(edited),
        "labels_asked": len(hits["edited"]),
    }


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
    figures = measure(options.count, options.seed, *load_pair("mini"), load_oracle(), options.steps)
    write_json(options.json, figures | stamp([options.seed]))
    print(figures)


if __name__ == "__main__":
    main()
