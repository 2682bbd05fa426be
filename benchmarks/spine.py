"""Figures of the shipped decoder and of the demo's way.

    python benchmarks/spine.py --json PATH [--pictures 800] [--pairs 5]

Test pictures are `data/miniworld/test` (800 renders that no fit ever saw); baselines may use the same 100 labelled
pictures as the decoder, `mini:train`. All shares are between 0 and 1.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, stamp
from torch.nn import functional as F

from datasetdm.evaluate import evaluate, read_features
from datasetdm.files import write_json
from datasetdm.generate import DatasetGenerator
from datasetdm.metrics import DepthMeter, SemanticMeter
from datasetdm.model import load_pair
from datasetdm.prompts.composer import Grammar
from datasetdm.readers import read
from datasetdm.readers.mini import THINGS
from datasetdm.store import Store
from datasetdm.types import DepthMap, Labels, Sample, SemanticMap

SEED = 0
TEST = f"mini:{ROOT / 'data' / 'miniworld' / 'test'}"


# ---------------------------------------------------------------------- how good
def decoder_figures(pictures: int) -> dict[str, float]:
    """The shipped decoder: pictures read under their captions, as when they are generated, and under none."""
    decoder, backbone = load_pair("mini")
    told, untold = (evaluate(decoder, backbone, islice(read(TEST), pictures), captions=c) for c in (True, False))
    return {
        "decoder_miou": told["semantic"]["miou"],
        "decoder_accuracy": told["semantic"]["accuracy"],
        "decoder_absrel": told["depth"]["absrel"],
        "delta1": told["depth"]["delta1"],
        "decoder_absrel_scaled": told["depth"]["absrel_scaled"],
        "delta1_scaled": told["depth"]["delta1_scaled"],
        "decoder_ap": told["instance"]["ap"],
        "decoder_ap50": told["instance"]["ap50"],
        "decoder_miou_without_captions": untold["semantic"]["miou"],
        "decoder_absrel_without_captions": untold["depth"]["absrel"],
        "delta1_without_captions": untold["depth"]["delta1"],
    }


def prior_figures(pictures: int) -> dict[str, float]:
    """The most frequent label and the mean log depth at every pixel of the 100 labelled pictures."""
    train = list(read("mini:train"))
    labels = len(train[0].labels)
    ids = np.stack([s.annotations["semantic"].ids for s in train])
    votes = np.stack([(ids == i).sum(0) for i in range(labels)])
    depth = [s.annotations["depth"] for s in train]
    logs = np.stack([np.where(d.valid, np.log(np.maximum(d.depth, 1e-3)), np.nan) for d in depth])
    everywhere = np.nanmean(logs)
    mean = np.exp(np.where(np.isnan(logs).all(0), everywhere, np.nanmean(logs, 0)))
    guess = SemanticMap(votes.argmax(0).astype(np.uint16)), DepthMap(mean, np.ones(mean.shape, bool))
    semantic, depths = SemanticMeter(), DepthMeter()
    for sample in islice(read(TEST), pictures):
        semantic.update(guess[0], sample.annotations["semantic"], labels)
        depths.update(guess[1], sample.annotations["depth"])
    figures = depths.compute()
    return {
        "prior_miou": semantic.compute()["miou"],
        "mean_depth_absrel": figures["absrel"],
        "mean_depth_delta1": figures["delta1"],
        "mean_depth_absrel_scaled": figures["absrel_scaled"],
        "mean_depth_delta1_scaled": figures["delta1_scaled"],
    }


def attention_figures(pictures: int) -> dict[str, float | str]:
    """The labels' cross-attention maps alone: the label of a pixel is the largest. Of all ways (which stride; maps as they
    are or standardised over the 100 labelled pictures; all labels or those that the caption names) the one that does
    best on the 100."""
    decoder, backbone = load_pair("mini")
    labels = decoder.config.labels
    train = list(read("mini:train"))
    best, way = -1.0, {}
    for stride in (s.name for s in backbone.specs if s.kind == "attention"):
        maps = torch.cat([m for m, _ in _attention(train, backbone, labels, stride)])
        mean, std = maps.mean((0, 2, 3), keepdim=True), maps.std((0, 2, 3), keepdim=True) + 1e-6
        norms = {"raw": (torch.zeros_like(mean), torch.ones_like(std)), "standardised": (mean, std)}
        for (name, norm), named in itertools.product(norms.items(), (False, True)):
            score = _argmax_miou(zip(maps.split(1), [[s] for s in train], strict=True), *norm, named)
            if score > best:
                best, way = score, {"stride": stride, "name": name, "norm": norm, "named": named}
    test = _attention(islice(read(TEST), pictures), backbone, labels, way["stride"])
    said = f"{way['stride']}, {way['name']}, {'named' if way['named'] else 'all'} labels"
    return {"attention_only_miou": _argmax_miou(test, *way["norm"], way["named"]), "attention_only_way": said}


def _attention(samples: Any, backbone: Any, labels: Labels, stride: str) -> Iterator[tuple[torch.Tensor, list[Sample]]]:
    iterator = iter(samples)
    while chunk := list(islice(iterator, 16)):
        f, _ = read_features(backbone, chunk, labels)
        own = f.maps[stride].float().mean(2)
        yield F.interpolate(own, backbone.size, mode="bilinear", align_corners=False), chunk


def _argmax_miou(batches: Any, mean: torch.Tensor, std: torch.Tensor, named: bool) -> float:
    meter = SemanticMeter()
    for maps, chunk in batches:
        for score, sample in zip((maps - mean) / std, chunk, strict=True):
            labels = sample.labels.names
            if named and sample.prompt and sample.prompt.labels:
                absent = torch.tensor([n not in sample.prompt.labels for n in labels])
                score = score.masked_fill(absent[:, None, None], float("-inf"))
            ids = score.argmax(0).numpy().astype(np.uint16)
            meter.update(SemanticMap(ids), sample.annotations["semantic"], len(labels))
    return meter.compute()["miou"]


# ---------------------------------------------------------------------- how fast
def speed(pairs: int) -> dict[str, Any]:
    """Batches of 16 in turn, plain and annotated, of the same prompts and seeds; the median of the paired ratios."""
    generator = DatasetGenerator(Grammar.load().compose(16, SEED), batch=16, seed=SEED)
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


def help_seconds() -> float:
    """Median of seven."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "datasetdm", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def identical_after_kill() -> bool:
    """`datasetdm generate` run twice, one of them killed when its first batches are stored and then run again."""
    code = "import datasetdm.generate as g, datasetdm.cli as c; g.FLUSH_SECONDS = 0; c.main()"
    options = ["--count", "12", "--batch", "4", "--steps", "10", "--out"]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"

        def run(out: Path) -> subprocess.Popen[bytes]:
            prompts = ["a photo of a red bus on a road", "a brown dog in a park"]
            command = [sys.executable, "-c", code, "generate", "--prompts", *prompts, *options, str(out)]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        process = run(killed)
        while process.poll() is None and not list((killed / "data").glob("*.parquet")):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        held = len(Store(killed))
        if not 0 < held < 12:
            raise RuntimeError(f"the kill came too late or too early: {held} samples")
        for out in (killed, whole):
            if run(out).wait():
                raise RuntimeError("generate failed")
        return [s.digest() for s in Store(killed)] == [s.digest() for s in Store(whole)]


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, Any] = {"test_pictures": options.pictures, "things_among_labels": THINGS}
    parts = (
        ("speed", lambda: speed(options.pairs)),
        ("help", lambda: {"help_seconds": help_seconds()}),
        ("kill and resume", lambda: {"identical_after_kill": identical_after_kill()}),
        ("decoder", lambda: decoder_figures(options.pictures)),
        ("priors", lambda: prior_figures(options.pictures)),
        ("attention alone", lambda: attention_figures(options.pictures)),
    )
    for name, measure in parts:
        start = time.perf_counter()
        own = measure()
        figures |= own
        print(f"{name} ({time.perf_counter() - start:.0f} s): {own}", flush=True)
    write_json(options.json, figures | stamp([SEED]))


if __name__ == "__main__":
    main()
