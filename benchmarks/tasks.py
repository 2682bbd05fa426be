"""Figures of every task, beside those of other ways to learn from the same 100 labelled images.

    python -m benchmarks.tasks --json PATH [--quick] [--captioned DIR] [--methods NAME ...] [--baseline-seeds N]

Fits ours on `mini:train` and the baselines on the same images with the same augmentation, for at least as long as ours took
and at the best of three learning rates (chosen on images held out of the 100, with the first seed), and measures all on the
800 renders of `data/miniworld/test`, which are committed. `--quick` takes one seed and 200 of them, ours and pixels only.
Ours has caption labels; `ours_untold` (the same fit) has none, and `pixels_told` is a pixel network
that does. `pixels_pretrained` needs the mini world's captioned renders (a folder with captioned-*.parquet). What was
measured lies in the work folder (PATH.work): the same command goes on where it was stopped. All shares are between 0 and 1.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import fitting, zero_shot
from benchmarks.baselines import attention, words
from benchmarks.baselines.base import Baseline, without_caption_labels
from benchmarks.baselines.mlp import PixelMLP
from benchmarks.baselines.paper import PaperDecoder
from benchmarks.baselines.pixels import CaptionPixelNet, PixelBackbone, PixelNet, with_encoder
from benchmarks.common import TEST, Work, stamp
from benchmarks.generated import generated_figures
from benchmarks.report import summary
from benchmarks.speed import speed
from datasetdm.backbones import Backbone, load_backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.io.files import write_json
from datasetdm.pipelines.fit import Build, FitConfig
from datasetdm.records import Sample

TRAIN = "mini:train"
METHODS: dict[str, type[Baseline]] = {
    "pixels": PixelNet,
    "pixels_pretrained": PixelNet,
    "pixels_told": CaptionPixelNet,
    "mlp": PixelMLP,
    "paper": PaperDecoder,
}
QUICK_MINUTES, QUICK_STEPS = 21, 200
"""What `--quick` lets the fits of ours and of the pixel network take together (two free cores), and its zero-shot steps."""


@dataclass
class Bench:
    """One run. All methods return figures as JSON-ready dictionaries, measured once.

    config: of our fits. trial: share of a fit's steps that a learning rate is tried for; 1 tries it in full. limit:
    seconds that our fit, a baseline's and its trials may take together, None for as many as they need. baseline_seeds: how
    many of the seeds baselines get, None for all.
    """

    work: Work
    train: Sequence[Sample]
    test: Sequence[Sample]
    seeds: Sequence[int]
    config: FitConfig
    data: str = TRAIN
    model: str = "mini"
    trial: float = 1.0
    limit: float | None = None
    zero_shot_steps: int | None = None
    captioned: Path | None = None
    baseline_seeds: int | None = None

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return load_backbone(self.model)

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """All that exist and have labels."""
        return fitting.available(self.train)

    # ------------------------------------------------------------------ ours
    def ours(self, seed: int) -> dict[str, Any]:
        """Figures of the P-Decoder, with its fit's seconds and memory."""

        def measure() -> dict[str, Any]:
            config = self.config.model_copy(update={"seed": seed, "tasks": self.tasks})
            cost = fitting.fit_ours(self.data, self._decoder(seed), self.model, config)
            decoder = self.decoder(seed)
            return {"figures": fitting.figures(decoder, self.backbone, self.test), **cost}

        return self.work.unit(f"ours-{seed}", measure)

    def without_caption_labels(self, seed: int) -> dict[str, Any]:
        """Semantic figures of the same fit without caption labels."""

        def measure() -> dict[str, Any]:
            found = fitting.figures(without_caption_labels(self.decoder(seed)), self.backbone, self.test)
            return {"figures": {"semantic": found["semantic"]}}

        return self.work.unit(f"ours-untold-{seed}", measure)

    def decoder(self, seed: int) -> PDecoder:
        """Ours, fitted."""
        return PDecoder.load(self._decoder(seed)).to(self.backbone.device).eval()

    def _decoder(self, seed: int) -> Path:
        return self.work.folder / f"ours-{seed}"

    # ------------------------------------------------------------------ baselines
    def baseline(self, name: str, seed: int) -> dict[str, Any]:
        """Figures of one of `METHODS`, with its learning rate, steps and seconds."""

        def measure() -> dict[str, Any]:
            rate, steps = self._rate(name), self._steps(name)
            decoder, seconds = self._fit(name, seed, rate, steps)
            found = fitting.figures(decoder, self._input(name), self.test)
            shutil.rmtree(self._views(name, seed), ignore_errors=True)
            return {"figures": found, "rate": rate, "steps": steps, "fit_seconds": seconds}

        return self.work.unit(f"{name}-{seed}", measure)

    def asked(self, name: str) -> list[int]:
        """The seeds of a baseline: as many as are wanted, and those that have been measured."""
        first = list(self.seeds[: self.baseline_seeds])
        return first + [s for s in self.seeds if s not in first and self.work.known(f"{name}-{s}")]

    def _rate(self, name: str) -> float:
        """The learning rate that does best on images held out of the 100, with the first seed."""

        def try_rate(rate: float) -> dict[str, float]:
            steps = max(1, round(self.trial * self._steps(name)))
            decoder, seconds = self._fit(name, self.seeds[0], rate, steps)
            return {"held_out": fitting.held_out_score(decoder), "steps": steps, "fit_seconds": seconds}

        rates = METHODS[name].RATES
        scores = [self.work.unit(f"{name}-rate-{r:g}", lambda r=r: try_rate(r))["held_out"] for r in rates]
        return rates[max(range(len(rates)), key=scores.__getitem__)]

    def _steps(self, name: str) -> int:
        """As many as take at least as long as our fit, unless a limit forbids it."""

        def measure() -> dict[str, float]:
            samples = fitting.InMemoryReader(self.train, self.train[0].labels)
            config = self._settings(name, self.seeds[0], METHODS[name].RATES[0], 1)
            with tempfile.TemporaryDirectory() as folder:
                step = fitting.seconds_per_step(
                    samples, Path(folder) / "fit", self._input(name), config, self._build(name)
                )
            wanted = self.ours(self.seeds[0])["fit_seconds"]
            given = wanted if self.limit is None else min(wanted, (self.limit - wanted) / (1 + 3 * self.trial))
            return {
                "step": step,
                "wanted": wanted,
                "given": given,
                "steps": fitting.steps_for(given, step, METHODS[name].LEAST),
            }

        return int(self.work.unit(f"{name}-steps", measure)["steps"])

    def _fit(self, name: str, seed: int, rate: float, steps: int) -> tuple[PDecoder, float]:
        samples = fitting.InMemoryReader(self.train, self.train[0].labels)
        out = self.work.folder / f"{name}-{seed}-{rate:g}-{steps}"
        config, build = self._settings(name, seed, rate, steps), self._build(name)
        seconds = fitting.fit(samples, out, self._input(name), config, build, self._views(name, seed))
        return METHODS[name].load(out), seconds

    def _settings(self, name: str, seed: int, rate: float, steps: int) -> FitConfig:
        """Ours, but for the learning rate, the steps, and as many views as the baseline has time for."""
        method = METHODS[name]
        changes = {"tasks": fitting.available(self.train, method.TASKS), "learning_rate": rate, "seed": seed}
        more = max(self.config.variants, method.VARIANTS)
        return self.config.model_copy(
            update={**changes, "steps": steps, "variants": more, "evaluate_every": max(1, min(100, steps // 5))}
        )

    def _views(self, name: str, seed: int) -> Path:
        return self.work.folder / f"views-{name}-{seed}"

    def _input(self, name: str) -> Any:
        pixels = issubclass(METHODS[name], PixelNet)
        return PixelBackbone(len(self.train[0].labels), self.backbone.size[0]) if pixels else self.backbone

    def _build(self, name: str) -> Build:
        return with_encoder(self._encoder()) if name == "pixels_pretrained" else METHODS[name].for_backbone

    def _encoder(self) -> Path:
        """Pretrained for as long as our fit takes."""
        path = self.work.folder / "encoder.safetensors"
        seconds = self.ours(self.seeds[0])["fit_seconds"]
        captioned = self.captioned
        assert captioned is not None
        self.work.unit("pretraining", lambda: words.pretrain(captioned, path, seconds))
        return path

    # ------------------------------------------------------------------ the rest
    def attention(self) -> dict[str, Any]:
        """The attention map alone."""

        def measure() -> dict[str, Any]:
            names = self.train[0].labels.names
            way = attention.choose_way(self.backbone, self.train, names)
            meter = attention.measure(self.backbone, self.test, names, way)
            return {"figures": {"semantic": meter.compute()}, "way": str(way)}

        return self.work.unit("attention", measure)

    def zero_shot(self, seed: int) -> dict[str, Any]:
        """Ours with a third of the things unseen."""
        out = self.work.folder / f"zero-shot-{seed}"
        steps = self.zero_shot_steps or self.config.steps
        config = self.config.model_copy(update={"seed": seed, "steps": steps})
        measure = zero_shot.ours
        return self.work.unit(f"zero-shot-{seed}", lambda: measure(self.train, self.test, out, self.backbone, config))

    def zero_shot_attention(self, seed: int) -> dict[str, Any]:
        """Attention alone for the same labels."""
        measure = zero_shot.attention_alone
        return self.work.unit(
            f"zero-shot-attention-{seed}", lambda: measure(self.train, self.test, self.backbone, seed)
        )

    def generated(self, count: int) -> dict[str, Any]:
        """Drawn images against the oracle."""
        seed = self.seeds[0]
        return self.work.unit(
            "generated", lambda: generated_figures(self.decoder(seed), self.backbone, self.test, count, seed)
        )

    def annotate_share(self, pairs: int) -> dict[str, Any]:
        """What annotating adds to the time of drawing."""

        def measure() -> dict[str, Any]:
            own = speed(pairs, self._decoder(self.seeds[0]))
            return {"annotate_share": statistics.median(1 / r - 1 for r in own["ratios"]), **own}

        return self.work.unit("speed", measure)

    def notes(self) -> list[str]:
        """Which baselines had to do with less time than ours."""
        given = {name: self.work.known(f"{name}-steps") for name in METHODS}
        return [
            f"{name}: fitted for {g['given']:.0f} s, ours for {g['wanted']:.0f} s"
            for name, g in given.items()
            if g and g["given"] < g["wanted"]
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one seed, 200 renders, ours and pixels only")
    parser.add_argument("--captioned", type=Path, help="folder of the captioned renders, for pixels_pretrained")
    parser.add_argument("--minutes", type=float, help=f"with --quick, for both fits together ({QUICK_MINUTES})")
    parser.add_argument("--work", type=Path, help="where measured figures are kept (PATH.work)")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="baselines to measure (all)")
    parser.add_argument(
        "--baseline-seeds", type=int, help="seeds of each baseline (as many as ours), beside those measured before"
    )
    options = parser.parse_args(arguments)
    quick, seeds = options.quick, [0] if options.quick else [0, 1, 2]
    images, prompts, pairs = (200, 64, 2) if quick else (800, 400, 11)
    work = Work(options.work or options.json.with_suffix(".work"), {"quick": quick, "pictures": images})
    bench = Bench(
        work,
        fitting.load_samples(TRAIN),
        fitting.load_samples(TEST, images),
        seeds,
        FitConfig(),
        trial=0.15 if quick else 1 / 3,
        limit=60 * (options.minutes or QUICK_MINUTES) if quick else None,
        zero_shot_steps=QUICK_STEPS if quick else None,
        captioned=options.captioned,
        baseline_seeds=options.baseline_seeds,
    )
    methods = ["pixels"] if quick else list(METHODS)
    result = run(bench, methods if options.methods is None else options.methods, prompts, pairs, quick)
    write_json(options.json, result | {"test_pictures": images, "quick": quick} | stamp(seeds))


def run(bench: Bench, methods: Sequence[str], prompts: int, pairs: int, quick: bool) -> dict[str, Any]:
    """All units, in the order of what matters most, and their summary."""
    notes = ["deviation: sample standard deviation of ours over the seeds, null for one seed"]
    if bench.captioned is None and "pixels_pretrained" in methods:
        notes.append("pixels_pretrained: not measured, as no --captioned folder was given")
        methods = [m for m in methods if m != "pixels_pretrained"]
    found: dict[str, list[dict[str, Any]]] = {"ours": [bench.ours(s) for s in bench.seeds]}
    found["ours_untold"] = [bench.without_caption_labels(s) for s in bench.seeds]
    notes.append("ours and pixels_told have caption labels, ours_untold has none")
    generated, pace = bench.generated(prompts), bench.annotate_share(pairs)
    for name in methods:
        found[name] = [bench.baseline(name, s) for s in bench.asked(name)]
    unseen, floor = [bench.zero_shot(s) for s in bench.seeds], []
    if quick:
        notes.append(f"--quick: ours and pixels only; zero-shot fits have {bench.zero_shot_steps} steps")
    else:
        found["attention"] = [bench.attention()]
        floor = [bench.zero_shot_attention(s) for s in bench.seeds]
    return summary(bench.tasks, found, unseen, floor, generated, pace, [*notes, *bench.notes()])


if __name__ == "__main__":
    main()
