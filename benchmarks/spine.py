"""Figures of the shipped decoder and of the demo's way.

    python -m benchmarks.spine --json PATH [--images 800] [--pairs 5]

Test images are `data/miniworld/test` (800 renders that no fit ever saw); baselines may use the same 100 labelled
images as the decoder, `mini:train`. All shares are between 0 and 1.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.attention import choose_way
from benchmarks.baselines.attention import measure as measure_attention
from benchmarks.common import TEST, stamp
from benchmarks.speed import SEED, speed
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import load_pair
from datasetdm.decoder.tasks.depth import NEAR
from datasetdm.io.files import write_json
from datasetdm.metrics import DepthMeter, SemanticMeter
from datasetdm.pipelines.evaluate import evaluate
from datasetdm.readers import read
from datasetdm.readers.formats.mini import THINGS
from datasetdm.records import IGNORE, DepthMap, SemanticMap
from datasetdm.store import Store


# ---------------------------------------------------------------------- how good
def decoder_figures(images: int) -> dict[str, float]:
    """The shipped decoder: images read under their captions, as when they are generated, and under none."""
    decoder, backbone = load_pair("mini")
    captioned, without = (evaluate(decoder, backbone, islice(read(TEST), images), captions=c) for c in (True, False))
    return {
        "decoder_miou": captioned["semantic"]["miou"],
        "decoder_accuracy": captioned["semantic"]["accuracy"],
        "decoder_absrel": captioned["depth"]["absrel"],
        "delta1": captioned["depth"]["delta1"],
        "decoder_absrel_scaled": captioned["depth"]["absrel_scaled"],
        "delta1_scaled": captioned["depth"]["delta1_scaled"],
        "decoder_ap": captioned["instance"]["ap"],
        "decoder_ap50": captioned["instance"]["ap50"],
        "decoder_miou_without_captions": without["semantic"]["miou"],
        "decoder_absrel_without_captions": without["depth"]["absrel"],
        "delta1_without_captions": without["depth"]["delta1"],
    }


def confidence_figures(images: int) -> dict[str, float]:
    """How far confidences are true. Right is a pixel with the true label, or with depth within a factor of 1.25.

    `_right`: their share. `_sure`: pixels whose confidence is at least a half, `_sure_right` the share of these that is right.
    `_calibration`: what confidence and share of right pixels differ by, in 16 steps of confidence, weighted by pixels.
    """
    decoder, backbone = load_pair("mini")
    counts = {"semantic": np.zeros((256, 2), int), "depth": np.zeros((256, 2), int)}
    for sample, own in annotate(decoder, backbone, islice(read(TEST), images)):
        assert sample.semantic and sample.depth and own.semantic and own.depth
        true, found = sample.semantic.ids, own.semantic
        counts["semantic"] += levels(found.confidence, found.ids == true, true != IGNORE)
        valid = sample.depth.valid & own.depth.valid
        off = np.abs(np.log(np.where(valid, own.depth.depth, 1)) - np.log(np.where(valid, sample.depth.depth, 1)))
        counts["depth"] += levels(own.depth.confidence, off < NEAR, valid)
    return {f"{task}_{k}": v for task, own in counts.items() for k, v in reliability(own).items()}


def levels(confidence: np.ndarray | None, right: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Of every level of confidence, 0 to 255: known pixels, and those of them that are right."""
    assert confidence is not None
    level = np.rint(confidence[known].astype(np.float32) * 255).astype(int)
    return np.stack([np.bincount(level, w, 256).astype(int) for w in (None, right[known])], 1)


def reliability(counts: np.ndarray) -> dict[str, float]:
    """See `confidence_figures`."""
    pixels, right = counts.T
    said = (pixels * np.arange(256) / 255).reshape(16, 16).sum(1)
    sure = counts[128:].sum(0)
    return {
        "right": float(right.sum() / pixels.sum()),
        "sure": float(sure[0] / pixels.sum()),
        "sure_right": float(sure[1] / max(1, sure[0])),
        "calibration": float(np.abs(said - right.reshape(16, 16).sum(1)).sum() / pixels.sum()),
    }


def prior_figures(images: int) -> dict[str, float]:
    """The most frequent label and the mean log depth at every pixel of the 100 labelled images."""
    train = list(read("mini:train"))
    labels = len(train[0].labels)
    ids = np.stack([s.semantic.ids for s in train if s.semantic])
    votes = np.stack([(ids == i).sum(0) for i in range(labels)])
    depth = [s.depth for s in train if s.depth]
    logs = np.stack([np.where(d.valid, np.log(np.maximum(d.depth, 1e-3)), np.nan) for d in depth])
    everywhere = np.nanmean(logs)
    mean = np.exp(np.where(np.isnan(logs).all(0), everywhere, np.nanmean(logs, 0)))
    likeliest, usual = SemanticMap(votes.argmax(0).astype(np.uint16)), DepthMap(mean, np.ones(mean.shape, bool))
    semantic, depths = SemanticMeter(), DepthMeter()
    for sample in islice(read(TEST), images):
        guess = replace(sample, semantic=likeliest, depth=usual)
        semantic.update(guess, sample)
        depths.update(guess, sample)
    figures = depths.compute()
    return {
        "prior_miou": semantic.compute()["miou"],
        "mean_depth_absrel": figures["absrel"],
        "mean_depth_delta1": figures["delta1"],
        "mean_depth_absrel_scaled": figures["absrel_scaled"],
        "mean_depth_delta1_scaled": figures["delta1_scaled"],
    }


def attention_figures(images: int) -> dict[str, float | str]:
    """The labels' attention maps alone, in the way that does best on the 100 labelled images."""
    decoder, backbone = load_pair("mini")
    names = decoder.config.labels.names
    way = choose_way(backbone, list(read("mini:train")), names)
    meter = measure_attention(backbone, islice(read(TEST), images), names, way)
    return {"attention_only_miou": meter.compute()["miou"], "attention_only_way": str(way)}


# ---------------------------------------------------------------------- how fast
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
    code = "import datasetdm.engines.local as e, datasetdm.cli as c; e.FLUSH_SECONDS = 0; c.main()"
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
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    figures: dict[str, Any] = {"test_pictures": options.images, "things_among_labels": THINGS}
    parts = (
        ("speed", lambda: speed(options.pairs)),
        ("help", lambda: {"help_seconds": help_seconds()}),
        ("kill and resume", lambda: {"identical_after_kill": identical_after_kill()}),
        ("decoder", lambda: decoder_figures(options.images)),
        ("confidence", lambda: confidence_figures(options.images)),
        ("priors", lambda: prior_figures(options.images)),
        ("attention alone", lambda: attention_figures(options.images)),
    )
    for name, measure in parts:
        start = time.perf_counter()
        own = measure()
        figures |= own
        print(f"{name} ({time.perf_counter() - start:.0f} s): {own}", flush=True)
    write_json(options.json, figures | stamp([SEED]))


if __name__ == "__main__":
    main()
