"""What the P-Decoder's parts and settings are worth.

    python -m benchmarks.ablations --json PATH [--only NAME ...] [--seeds 1] [--work DIR]

Each row is a fit with one setting changed, measured on the 200 val renders (test renders choose nothing). The table goes to
`docs/ablations.md`. What was measured lies in the work folder (PATH.work): rows of other runs with the same settings stay in
the table, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import fitting
from benchmarks.baselines.base import without_caption_labels
from benchmarks.common import RENDERS, ROOT, VAL, Work, stamp
from benchmarks.report import deviation, finite, mean
from datasetdm.backbones import Backbone, FeatureConfig, load_backbone
from datasetdm.backbones.features import Features, FeatureSpec
from datasetdm.decoder.model import PDecoder
from datasetdm.io.files import write_json, write_text
from datasetdm.pipelines.fit import FitConfig
from datasetdm.records import Sample

DATA = f"mini:{RENDERS / 'train'}"
"""The first 100 are `mini:train`."""


USUAL = FeatureConfig(timesteps=(50,))


@dataclass(frozen=True)
class Row:
    """One line of the table. without: kinds of features that are left out. indices: labels are numbers, not words.
    caption_labels: whether the decoder gets the caption labels."""

    group: str
    name: str
    features: FeatureConfig = USUAL
    without: tuple[str, ...] = ()
    indices: bool = False
    images: int = 100
    caption_labels: bool = True

    @property
    def plain(self) -> bool:
        """Whether nothing but the labels' words is changed, if anything."""
        return (self.features, self.without, self.images, self.caption_labels) == (USUAL, (), 100, True)

    @property
    def key(self) -> str:
        """Rows that are the same fit have the same."""
        changes: dict[str, Any] = {"t": self.features.timesteps, "inv": self.features.inversion, "no": self.without}
        changes |= {"indices": self.indices, "images": self.images, "caption_labels": self.caption_labels}
        return "-".join(f"{k}_{'_'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in changes.items())


def _at(*timesteps: int) -> FeatureConfig:
    return FeatureConfig(timesteps=timesteps)


ROWS = (
    *(Row("timesteps", str(t), _at(t)) for t in (1, 50, 100, 250)),
    Row("timesteps", "1, 50 and 250", _at(1, 50, 250)),
    Row("attention", "with cross-attention"),
    Row("attention", "without", without=("attention",)),
    Row("vae", "with VAE features"),
    Row("vae", "without", without=("vae",)),
    Row("labels", "label text"),
    Row("labels", "learned label indices", indices=True),
    Row("captions", "labels that the caption names are told"),
    Row("captions", "not told", caption_labels=False),
    Row("images", "5", images=5),
    Row("images", "20", images=20),
    Row("images", "100"),
    Row("images", "400", images=400),
    Row("inversion", "re-noising"),
    Row("inversion", "DDIM inversion", FeatureConfig((50,), "ddim")),
)
FIGURES = {
    "semantic": ("miou", "miou_things"),
    "instance": ("ap",),
    "depth": ("absrel", "delta1_scaled"),
    "keypoints": ("oks_ap",),
}


class Altered:
    """A backbone without some of its features, with numbers for words, or with other words for some labels."""

    def __init__(
        self,
        inner: Backbone,
        without: Sequence[str] = (),
        indices: int | None = None,
        rename: Mapping[str, str] | None = None,
    ):
        self.inner, self.without, self.indices, self.rename = inner, without, indices, rename or {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """What is left."""
        return tuple(s for s in self.inner.specs if s.kind not in self.without)

    @property
    def text_width(self) -> int:
        """Of words, or one a label."""
        return self.indices or self.inner.text_width

    def features(self, latents: torch.Tensor, captions: Sequence[str], labels: Sequence[str]) -> Features:
        """See `Backbone`."""
        f = self.inner.features(latents, captions, [self.rename.get(n, n) for n in labels])
        text = torch.eye(self.indices, device=f.text.device) if self.indices else f.text
        return Features({s.name: f.maps[s.name] for s in self.specs}, text, f.images)


def measure(
    row: Row, out: Path, config: FitConfig, backbone: str = "mini", train: str = DATA, test: str = VAL
) -> dict[str, Any]:
    """Fit a row and measure it; where nothing but labels is changed also with their synonyms in place of their names."""
    samples = fitting.load_samples(train, row.images)
    labels = samples[0].labels
    inner = load_backbone(backbone, config=row.features)
    indices = len(labels) if row.indices else None
    frozen: Any = Altered(inner, row.without, indices)
    config = config.model_copy(update={"tasks": fitting.available(samples)})
    ready = (lambda d: d) if row.caption_labels else without_caption_labels
    seconds = fitting.fit(
        fitting.InMemoryReader(samples, labels),
        out,
        frozen,
        config,
        lambda *given: ready(PDecoder.for_backbone(*given)),
    )
    decoder = ready(PDecoder.load(out).to(inner.device).eval())
    held = fitting.load_samples(test)
    value = {"figures": fitting.figures(decoder, frozen, held), "fit_seconds": seconds}
    if row.plain:
        other: Any = Altered(inner, row.without, indices, _synonyms(held))
        value["miou_of_synonyms"] = fitting.figures(decoder, other, held)["semantic"]["miou"]
    return value


def _synonyms(samples: Sequence[Sample]) -> dict[str, str]:
    """Another word for every label that has one."""
    labels = samples[0].labels
    return {n: own[0] for n, own in zip(labels.names, labels.synonyms, strict=True) if own}


def table(groups: Mapping[str, Sequence[tuple[str, Sequence[Mapping[str, Any]]]]]) -> str:
    """Markdown: by group, (row's name, one measured unit a seed; none if it was not measured)."""
    units = [u for rows in groups.values() for _, own in rows for u in own]
    columns = [
        (t, f) for t, names in FIGURES.items() for f in names if any(f in u["figures"].get(t, {}) for u in units)
    ]
    head = ["", "", *(f"{t} {f}" for t, f in columns), "fit, s", "note"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for group, rows in groups.items():
        for name, own in rows:
            cells = [_cell([u["figures"].get(t, {}).get(f) for u in own]) for t, f in columns]
            other = [u["miou_of_synonyms"] for u in own if group == "labels" and "miou_of_synonyms" in u]
            note = f"mIoU when asked for synonyms: {_cell(other)}" if other else ""
            seconds = f"{mean([u['fit_seconds'] for u in own]):.0f}" if own else "not measured"
            lines.append("| " + " | ".join([group, name, *cells, seconds, note]) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    spread = deviation(known)
    return "" if not known else f"{mean(known):.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


HEAD = """# Ablations

One setting of the P-Decoder changed at a time. Fitted on 100 labelled renders where the row does not say otherwise, in {steps}
steps each, measured on the 200 val renders, which no fit saw (test renders choose nothing). Written by
`benchmarks/ablations.py`.

The defaults follow from it; with one seed, differences below 0.02 mean nothing. One timestep, 50: no other is clearly better,
and three cost three passes. Re-noising: inversion costs many passes for nothing. With the VAE's maps: objects need them. With
cross-attention: objects gain a little, and labels that no fit saw have nothing else. Words instead of indices: indices are as
good for known labels and can name no others. Caption labels: all depends on them. 100 images: 400 add little.

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    groups = tuple(dict.fromkeys(r.group for r in ROWS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, help="groups of rows to measure")
    parser.add_argument("--seeds", type=int, default=1, help="seeds per row")
    parser.add_argument("--steps", type=int, default=FitConfig().steps, help="steps per fit")
    parser.add_argument("--work", type=Path, help="where measured figures are kept (PATH.work)")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "ablations.md")
    options = parser.parse_args(arguments)
    work = Work(options.work or options.json.with_suffix(".work"), {"steps": options.steps})
    for row in (r for r in ROWS if r.group in options.only):
        for seed in range(options.seeds):
            out = work.folder / f"fit-{row.key}-{seed}"
            config = FitConfig(seed=seed, steps=options.steps)
            work.unit(_unit(row, seed), lambda row=row, out=out, config=config: measure(row, out, config))
    found = {g: [(r.name, _known(work, r, options.seeds)) for r in ROWS if r.group == g] for g in groups}
    write_text(options.table, HEAD.format(steps=options.steps) + table(found))
    values = {g: {name: own for name, own in rows if own} for g, rows in found.items()}
    write_json(options.json, finite({**values, "steps": options.steps}) | stamp(list(range(options.seeds))))


def _unit(row: Row, seed: int) -> str:
    """Rows of several groups that are the same fit are measured once."""
    return f"{row.key}-{seed}"


def _known(work: Work, row: Row, seeds: int) -> list[dict[str, Any]]:
    return [u for s in range(seeds) if (u := work.known(_unit(row, s))) is not None]


if __name__ == "__main__":
    main()
