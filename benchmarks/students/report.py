"""The tables of the rows that are there: JSON and a page, with a bootstrap interval for every gain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.students.rows import Bench, miou, unpack
from benchmarks.students.tables import REAL, ROWS, TABLES
from datasetdm.io.files import write_json, write_text

QUICK_ROWS = (REAL, "both", "both_filtered", "self_training")
RESAMPLES = 1000
INTERVAL = (2.5, 97.5)
"""Percentiles of the gain over resampled test images."""

HEAD = """\
# Results

What synthetic data are worth: ordinary models of `datasetdm train`, each trained on one mix of data, on renders of the mini
world. `make bench` measures what is missing and writes this page; `make bench ROWS=DIR` takes rows from another folder.

All rows of a table have the same student, number of optimiser steps and batches. The learning rate is chosen among
{rates} on 200 val renders, by {trials} steps each, for every row and seed alike; then the student is trained for {steps} steps
and measured once on 800 test renders. Half of every batch comes from the second part of a mix. {images} generated images are
shared by all rows, and as many renders stand in their place in some. Filters and their thresholds are fixed, not chosen.

*Gain* is the difference to *real only* with the same seeds, in points; in brackets its 95 % interval over resampled test
images (paired bootstrap, {resamples} resamples), which leaves out what another seed changes. Deviations are over seeds;
seconds are processor time of one row, learning rates included, without making its data.
"""

LIMITS = """\
## What limits the gain

Rows in which one part is replaced by the truth. *truth_on_generated* has labels of the oracle on the same generated images: a
network trained on exact labels, itself not free of errors. *decoder_on_renders* has the P-Decoder's labels on renders, and in
*true_renders* images and labels are true.
"""
PAIRS = (
    ("true_renders", "both", "all that synthetic data lack"),
    ("truth_on_generated", "both", "labels, on generated images"),
    ("true_renders", "decoder_on_renders", "labels, on renders"),
    ("true_renders", "truth_on_generated", "realism of the images"),
    ("both", "pseudo_generated", "worth of the P-Decoder over pseudo-labels"),
)
"""(better, worse, what the difference shows)."""

Counts = Mapping[int, np.ndarray]
"""By seed, pixels per test image and label; see `rows.image_counts`."""


# ---------------------------------------------------------------------- figures
def counts_of(bench: Bench, table: str, row: str, seeds: Sequence[int]) -> Counts:
    """Of the results that are there."""
    found = {s: bench.find(table, row, s) for s in seeds}
    return {s: unpack(value["counts"]) for s, value in found.items() if value is not None}


def difference(row: Counts, base: Counts, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any] | None:
    """The mean over common seeds of mIoU of `row` minus that of `base`, and its interval over resampled test images; None
    without a common seed."""
    common = sorted(row.keys() & base.keys())
    if not common:
        return None
    images = len(row[common[0]])
    rng = np.random.default_rng(seed)
    gain = statistics.fmean(miou(row[s].sum(0)) - miou(base[s].sum(0)) for s in common)
    weights = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(float)
    sampled = np.mean([_mious(weights, row[s]) - _mious(weights, base[s]) for s in common], 0)
    low, high = np.percentile(sampled, INTERVAL)
    return {"gain": gain, "low": float(low), "high": float(high), "seeds": common}


def _mious(weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """mIoU of every resample, f[resamples]. weights: how often each image is taken, f[resamples images]."""
    flat = weights @ counts.reshape(len(counts), -1).astype(float)
    right, true, found = np.moveaxis(flat.reshape(len(weights), -1, 3), -1, 0)
    iou = right / np.maximum(true + found - right, 1)
    return np.where(true > 0, iou, 0).sum(1) / (true > 0).sum(1)


def gains(bench: Bench, table: str, seeds: Sequence[int]) -> dict[str, dict[str, Any] | None]:
    """By row, its difference to real only."""
    base = counts_of(bench, table, REAL, seeds)
    return {r: difference(counts_of(bench, table, r, seeds), base) for r in ROWS if r != REAL}


def results(bench: Bench, seeds: Sequence[int]) -> dict[str, Any]:
    """All tables and rows; null for what was not measured."""
    return {
        "images": bench.data.count,
        "tables": {t: {r: _row(bench, t, r, seeds) for r in ROWS} for t in TABLES},
    }


def _row(bench: Bench, table: str, row: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean over seeds, sample deviation, the seeds, mean seconds, the results' files."""
    found = [] if TABLES[table].needs else [v for s in seeds if (v := bench.find(table, row, s)) is not None]
    figures = [v["figure"] for v in found]
    return {
        "mean": statistics.fmean(figures) if figures else None,
        "deviation": statistics.stdev(figures) if len(figures) > 1 else None,
        "seeds": [v["seed"] for v in found],
        "seconds": statistics.fmean(v["seconds"] for v in found) if found else None,
        "metric": TABLES[table].metric,
        "files": [f"{bench.name(table, row, v['seed'])}.json" for v in found],
        **({"needs": TABLES[table].needs} if TABLES[table].needs else {}),
    }


# ---------------------------------------------------------------------- page
def write_report(bench: Bench, seeds: Sequence[int], out: Path) -> list[Path]:
    """Write `results.json` and `results.md`; returns their paths."""
    value = results(bench, seeds)
    lines = [
        HEAD.format(
            rates=", ".join(f"{r:g}" for r in bench.settings.learning_rates),
            trials=bench.settings.trial_steps,
            steps=bench.settings.steps,
            images=bench.data.count,
            resamples=RESAMPLES,
        )
    ]
    for name, table in TABLES.items():
        lines += [f"## {table.title}", "", f"`{name}`, {table.metric}.", ""]
        if table.needs:
            lines += [f"Not measured yet. It needs {table.needs}.", ""]
            continue
        found = gains(bench, name, seeds)
        value["tables"][name] = {r: v | {"gain": found.get(r)} for r, v in value["tables"][name].items()}
        lines += [*table_lines(value["tables"][name], found), ""]
        lines += _missing(value["tables"][name], name, seeds, bench.data.count)
        lines += [LIMITS, *_limit_lines(bench, name, seeds), ""]
    paths = [out / "results.json", out / "results.md"]
    write_json(paths[0], value)
    write_text(paths[1], "\n".join(lines).rstrip() + "\n")
    return paths


def table_lines(
    found: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any] | None], rows: Sequence[str] = (*ROWS,)
) -> list[str]:
    """A Markdown table of one table's rows.

    Args:
        found: by row, as `results` has it.
        own: by row, the gain.
    """
    metric = found[REAL]["metric"]
    lines = [f"| row | data | {metric} | deviation | seeds | gain, points | seconds |", "|---|---|---|---|---|---|---|"]
    for name in rows:
        row, seeds = found[name], ", ".join(map(str, found[name]["seeds"]))
        if row["mean"] is None:
            lines.append(f"| `{name}` | {ROWS[name].title} | not measured yet |  |  |  |  |")
            continue
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.3f}"
        gain, seconds = _points(own.get(name)), f"{row['seconds']:.0f}"
        lines.append(
            f"| `{name}` | {ROWS[name].title} | {row['mean']:.3f} | {deviation} | {seeds} | {gain} | {seconds} |"
        )
    return lines


def _points(found: Mapping[str, Any] | None) -> str:
    """A difference in points with its interval."""
    return (
        "" if found is None else f"{100 * found['gain']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    )


def _missing(rows: Mapping[str, Mapping[str, Any]], table: str, seeds: Sequence[int], images: int) -> list[str]:
    """The commands that measure what is not there."""
    lacking = {r: [s for s in seeds if s not in row["seeds"]] for r, row in rows.items()}
    commands = [
        f"python -m benchmarks.students --table {table} --row {r} --images {images}  # seeds {', '.join(map(str, own))}"
        for r, own in lacking.items()
        if own
    ]
    return ["Not measured yet, and what measures it:", "", "```sh", *commands, "```", ""] if commands else []


def _limit_lines(bench: Bench, table: str, seeds: Sequence[int]) -> list[str]:
    lines = ["| what is missing | difference, points |", "|---|---|"]
    for better, worse, meaning in PAIRS:
        found = difference(counts_of(bench, table, better, seeds), counts_of(bench, table, worse, seeds))
        lines.append(f"| {meaning}: `{better}` - `{worse}` | {_points(found) or 'not measured yet'} |")
    return lines
