"""Annotated images per second, against plain images, the paper's loop and the arithmetic floor.

    python -m benchmarks.throughput --device cpu|cuda --json PATH [--table docs/throughput.md] [--pairs 3] [--batch 8]

On a CPU the model is the embedded one (128x128), on CUDA one of Stable Diffusion 1.5's size with random weights (512x512;
speed does not depend on weights); 25 guided steps. Runs alternate, so that a busy machine slows all of them alike, and
ratios are medians of the pairs':

(a) the plain diffusers pipeline in batches, in the precision that its documentation recommends;
(b) ours: the same images with all tasks of the decoder;
(c) the paper's loop (`paper_loop.py`): fewer images, never fewer of its 50 steps;
(d) the floor: multiplications of UNet and VAE over the rate of one large matrix product in the same precision.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import stamp
from benchmarks.paper_loop import PaperLoop
from benchmarks.sd15 import random_sd15
from datasetdm.backbones import load_backbone, pick_dtype
from datasetdm.backbones.hub import BUILTIN, load_pipeline
from datasetdm.decoder.model import PDecoder
from datasetdm.io.files import write_json, write_text
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.prompts.grammar import Grammar

SEED, STEPS = 0, 25


class Bench:
    """The three ways of making images."""

    def __init__(self, folder: Path, decoder: PDecoder | str, device: str, batch: int):
        self.device, self.batch = torch.device(device), batch
        self.dtype = pick_dtype(self.device)
        prompts = Grammar.load().compose(batch, SEED)
        backbone = "mini" if folder == BUILTIN["mini"] else str(folder)
        self.generator = DatasetGenerator(
            prompts, decoder=decoder, backbone=backbone, device=device, batch=batch, seed=SEED, steps=STEPS
        )
        self.prompts = [self.generator.prompt(i) for i in range(batch)]
        self.ours()
        self.peak = peak_bytes(self.device)  # of ours alone: the others are not loaded yet
        self.plain_pipe = self._pipe(folder, self.dtype)
        self.paper = PaperLoop(self._pipe(folder, torch.float32), folder, self.generator, self.device)

    def _pipe(self, folder: Path, dtype: torch.dtype) -> Any:
        pipe = load_pipeline(folder, dtype).to(self.device)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def plain(self) -> int:
        """(a)"""
        self.plain_pipe(
            [p.text for p in self.prompts],
            num_inference_steps=STEPS,
            guidance_scale=self.generator.guidance,
            generator=[torch.Generator("cpu").manual_seed(p.seed) for p in self.prompts],
        )
        return self.batch

    def ours(self) -> int:
        """(b)"""
        return len(self.generator.batch(0))

    def paper_loop(self) -> int:
        """(c)"""
        self.paper.image(self.prompts[0].text, self.prompts[0].seed)
        return 1


# ---------------------------------------------------------------------- the floor
def flops_per_image(bench: Bench) -> float:
    """Of all guided UNet evaluations and one VAE decoding."""
    pipe = bench.plain_pipe
    side = pipe.unet.config.sample_size
    latents = torch.zeros(1, pipe.unet.config.in_channels, side, side, device=bench.device, dtype=bench.dtype)
    length = pipe.tokenizer.model_max_length
    context = latents.new_zeros(1, length, pipe.unet.config.cross_attention_dim)
    counts = []
    for call in (lambda: pipe.unet(latents, 1, context), lambda: pipe.vae.decode(latents)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counts.append(counter.get_total_flops())
    return 2 * STEPS * counts[0] + counts[1]


def matrix_rate(bench: Bench, n: int) -> float:
    """FLOP a second of an n x n product: the best of ten, so the machine's own and not its neighbours'."""
    a = torch.randn(n, n, device=bench.device).to(bench.dtype)
    seconds = [timed(lambda: a @ a, bench.device)[0] for _ in range(11)][1:]
    return 2 * n**3 / min(seconds)


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """(seconds, result), with the device's queue empty before and after.

    On a CPU with one thread these are the process's own seconds, which neighbours on a busy machine hardly change.
    """
    clock = time.process_time if own_seconds(device.type) else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, result


def peak_bytes(device: torch.device) -> int:
    """The most memory that was held so far: the device's, or on a CPU the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_seconds(device: str) -> bool:
    """Whether seconds are those of this process alone."""
    return device == "cpu" and torch.get_num_threads() == 1


def open_bench(device: str, batch: int, folder: Path) -> Bench:
    """The embedded model and its decoder, or random ones of Stable Diffusion 1.5's size."""
    if device == "cpu":
        return Bench(BUILTIN["mini"], "mini", device, batch)
    random_sd15(folder, pick_dtype(torch.device(device)))
    shipped = PDecoder.load("mini").config
    backbone = load_backbone(str(folder), device=device)
    fresh = PDecoder.for_backbone(backbone, shipped.labels, shipped.tasks)
    fresh.save(folder / "decoder")
    del backbone, fresh
    torch.cuda.reset_peak_memory_stats()
    return Bench(folder, PDecoder.load(folder / "decoder"), device, batch)


def measure(device: str, batch: int, pairs: int) -> dict[str, Any]:
    """All figures of one device."""
    with tempfile.TemporaryDirectory() as folder:
        bench = open_bench(device, batch, Path(folder) / "pipeline")
        ways = {"plain": bench.plain, "ours": bench.ours, "paper_loop": bench.paper_loop}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for k in range(pairs + 1):
            for name, way in ways.items():
                seconds, made = timed(way, bench.device)
                if k:  # the first round warms up
                    rates[name].append(made / seconds)
            print(f"round {k}: " + ", ".join(f"{n} {r[-1]:.3f}/s" for n, r in rates.items() if r), flush=True)
        flops = flops_per_image(bench)
        rate = matrix_rate(bench, 2048 if device == "cpu" else 8192)
    by_plain = [o / p for o, p in zip(rates["ours"], rates["plain"], strict=True)]
    by_paper = [o / p for o, p in zip(rates["ours"], rates["paper_loop"], strict=True)]
    known = stamp([SEED])
    return {
        **{f"{name}_per_second": statistics.median(r) for name, r in rates.items()},
        "ours_to_plain": statistics.median(by_plain),
        "ours_to_paper_loop": statistics.median(by_paper),
        "share_of_floor": statistics.median(rates["ours"]) * flops / rate,
        "peak_gb": bench.peak / 1e9,
        "device": torch.cuda.get_device_name() if device == "cuda" else known["machine"],
        "versions": known["versions"],
        "all_ours_to_plain": [round(r, 3) for r in by_plain],
        "all_ours_to_paper_loop": [round(r, 1) for r in by_paper],
        "gflop_per_picture": flops / 1e9,
        "matrix_gflop_per_second": rate / 1e9,
        "batch": batch,
        "steps": STEPS,
        "tasks": list(bench.generator.decoder.config.tasks),
        "seconds": "of the process (one thread)" if own_seconds(device) else "of the clock",
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "commit": known["commit"],
        "seeds": known["seeds"],
    }


# ---------------------------------------------------------------------- table
ROWS = (
    ("(a) plain diffusers pipeline, images per second", "plain_per_second", "{:.2f}"),
    ("(b) ours with all tasks, images per second", "ours_per_second", "{:.2f}"),
    ("(c) the paper's loop, images per second", "paper_loop_per_second", "{:.3f}"),
    ("**(b) over (a)**, median of the pairs", "ours_to_plain", "{:.2f}"),
    ("**(b) over (c)**, median of the pairs", "ours_to_paper_loop", "{:.1f}"),
    ("(b) as a fraction of the arithmetic floor (d), median", "share_of_floor", "{:.2f}"),
    ("peak memory of (b), GB", "peak_gb", "{:.1f}"),
)
TARGETS = {"cpu": (0.87, 8), "cuda": (0.95, 20)}


def table(found: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Markdown of both devices; a device without results is marked as not measured."""
    lines = [
        "# Throughput",
        "",
        "Written by `benchmarks/throughput.py`, which says what (a) to (d) are. Runs alternate; ratios are medians of pairs.",
        "",
        "| | CPU, embedded model, 128x128 | CUDA, Stable Diffusion 1.5's size, 512x512 |",
        "|---|---|---|",
    ]
    for title, key, form in ROWS:
        cells = [form.format(f[key]) if (f := found[d]) else "not measured" for d in TARGETS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    goals = [f"{a} x (a), {c} x (c)" for a, c in TARGETS.values()]
    lines += [f"| targets | {' | '.join(goals)} |", ""]
    return "\n".join([*lines, *(f"{d}: {story(d, found[d])}" for d in TARGETS)]) + "\n"


def story(device: str, f: Mapping[str, Any] | None) -> str:
    """How one device's figures came about."""
    if not f:
        return (
            f"no such device was at hand; `python -m benchmarks.throughput --device {device} --json PATH` measures it."
        )
    ratios = [", ".join(map(str, f[k])) for k in ("all_ours_to_plain", "all_ours_to_paper_loop")]
    return (
        f"{f['device']}; {f['threads']} thread(s), seconds {f['seconds']}, load average {f['load_average']}; batches of "
        f"{f['batch']}, {f['steps']} guided steps, tasks {', '.join(f['tasks'])}; (b) over (a) of every pair: {ratios[0]}; "
        f"(b) over (c): {ratios[1]}; torch {f['versions']['torch']}, diffusers {f['versions']['diffusers']}; "
        f"commit {f['commit'][:12]}."
    )


def main() -> None:
    """Measure one device, write its figures, and the table of all that were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument(
        "--table", type=Path, help="also write docs/throughput.md there, from all results beside --json"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "error: there is no CUDA device here\n  remedy:   run it where torch.cuda.is_available(), or --device cpu"
        )
    write_json(options.json, measure(options.device, options.batch, options.pairs))
    if options.table:
        files = {d: options.json.parent / f"throughput-{d}.json" for d in TARGETS}
        found = {d: json.loads(f.read_text()) if f.exists() else None for d, f in files.items()}
        write_text(options.table, table(found))


if __name__ == "__main__":
    main()
