"""The report of what is there: JSON, a page and plots, with a bootstrap interval for every gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.students.curve_page import curve_lines, curve_points
from benchmarks.students.curves import CURVES
from benchmarks.students.gains import By, difference, found_rows, points, results
from benchmarks.students.plot import plot_curves, plot_gains
from benchmarks.students.rows import Bench, needs_of
from benchmarks.students.tables import REAL, ROWS, TABLES, Settings, Table
from datasetdm.io.files import write_json, write_text

QUICK_ROWS = (REAL, "both", "both_filtered", "self_training")
PLOT, CURVE_PLOT, SHEET = "students.svg", "students-curves.svg", "students-{table}.webp"

HEAD = """\
# Results

What synthetic data are worth: ordinary models of `datasetdm train`, each trained on one mix of data, on renders of the mini
world. `make bench` measures what is missing and writes this page; `make bench ROWS=DIR` takes rows from another folder.
`python -m benchmarks.students --data-only` makes first what rows share, so that several processes can measure: generated images,
labels, 150 renders each of night, fog and snow (alone: `python -m benchmarks.students.renders WORK/renders`). Tables with a
pretrained encoder begin with `benchmarks/students/encoder`, which learnt to name what captioned renders show
(`python -m benchmarks.students.pretrain RENDERS OUT`), what ImageNet is to photographs. Their captions name all things and
conditions, also those without labelled images in `zero_shot`, `long_tail` and `shift`.

All rows of a table have the same student, number of optimiser steps and batches. Where a table has several learning rates, one
is chosen on 200 val renders by short trainings, for every row and seed alike; then the student is trained and measured once on
the test renders. Half of every batch comes from the second part of a mix. {images} generated images are shared by all rows,
and as many renders stand in their place in some. Filters and their thresholds are fixed, not chosen.

*Gain* is the difference to *real only* with the same seeds, in points, positive where it is better; in brackets its 95 %
interval over resampled test images (paired bootstrap, 1,000 resamples, 200 for AP), which leaves out what another seed
changes: about a point, as sums in another order do. Deviations are over seeds; seconds are processor time of one row,
learning rates included, without making its data.

What limits the gain is shown by rows in which one part is replaced by the truth: *truth_on_generated* has labels of the oracle
on the same generated images (a network trained on exact labels, itself not free of errors), *decoder_on_renders* has the
P-Decoder's labels on renders, and in *true_renders* images and labels are true. Where *upper* is no better than *both*, the
student's steps limit it, not its data.
"""

CURVE_HEAD = """\
Rows of a semantic table with one setting at several values: mIoU, the gain in points with its interval, and the seeds that are
there (one is asked for). Gains are over real only at the same value, where the curve has it.
"""
PAIRS = (
    ("true_renders", "both", "all that synthetic data lack"),
    ("truth_on_generated", "both", "labels, on generated images"),
    ("true_renders", "decoder_on_renders", "labels, on renders"),
    ("true_renders", "truth_on_generated", "realism of the images"),
    ("both", "pseudo_generated", "worth of the P-Decoder over pseudo-labels"),
    ("both", "self_training", "worth over pseudo-labels on as many unlabelled renders"),
    ("both", "attention", "worth of the P-Decoder over attention"),
)
"""(better, worse, what the difference shows)."""


def write_report(bench: Bench, out: Path) -> list[Path]:
    """Write `results.json`, `results.md` and the plot; their paths."""
    value: dict[str, Any] = {"images": bench.data.count, "tables": {}, "curves": {}}
    lines = [HEAD.format(images=bench.data.count)]
    for name, table in TABLES.items():
        found = found_rows(bench, name, range(table.seeds))
        value["tables"][name] = own = results(bench, name, found)
        settings = bench.settings_of(name)
        rates = ", ".join(f"{r:g}" for r in settings.learning_rates)
        rates += f" by {settings.trial_steps} steps each" if len(settings.learning_rates) > 1 else " for all rows"
        lines += [
            f"## {table.title}",
            "",
            f"`{name}`, {table.metric}: {_student(table, settings)} for {settings.steps} steps of {settings.batch} images; "
            f"learning rate {rates}. Target: {table.target}.",
            "",
            *table_lines(own, [*table.rows]),
            "",
        ]
        if table.left_out:
            lines += ["Not in this table: " + "; ".join(f"`{r}` ({why})" for r, why in table.left_out) + ".", ""]
        if needs := needs_of(name):
            lines += [f"Not measured yet. It needs {needs}.", ""]
            continue
        lines += _missing(own, name, range(table.seeds), bench.data.count)
        if any(own[r]["seeds"] for r in own if r != REAL):
            lines += [*_limit_lines(found, [*table.rows]), ""]
    paths = [out / "results.json", out / "results.md"]
    plot = plot_gains({TABLES[t].title: rows for t, rows in value["tables"].items()})
    if plot:
        lines.insert(1, f"![Gains over real only with their intervals]({PLOT})\n")
        paths.append(out / PLOT)
        write_text(paths[-1], plot)
    lines += ["## Curves", "", CURVE_HEAD]
    for name in CURVES:
        value["curves"][name] = own = curve_points(bench, name)
        lines += curve_lines(name, own, bench.data.count)
    if plot := plot_curves({CURVES[n].title: rows for n, rows in value["curves"].items()}):
        lines.insert(lines.index("## Curves") + 2, f"![Figures over the setting]({CURVE_PLOT})\n")
        paths.append(out / CURVE_PLOT)
        write_text(paths[-1], plot)
    if sheets := [table for table in TABLES if (out / SHEET.format(table=table)).exists()]:
        about = "Test renders with the largest gain (left) and loss (right) from `real` to `both`: image, truth, before, after."
        lines += ["## Hits and misses", "", about, ""]
        lines += [f"![Hits and misses: {TABLES[t].title}]({SHEET.format(table=t)})\n" for t in sheets]
    write_json(paths[0], value)
    write_text(paths[1], "\n".join(lines).rstrip() + "\n")
    return paths


def _student(table: Table, settings: Settings) -> str:
    """The student, and what it begins with and sees where that is not the usual."""
    begins = " with the pretrained encoder" if table.pretrained else ""
    return table.student + begins + (f" at {settings.size} pixels" if settings.size else "")


def table_lines(found: Mapping[str, Mapping[str, Any]], rows: Sequence[str]) -> list[str]:
    """A Markdown table of one table's rows. found: by row, as `results` has it."""
    metric = found[REAL]["metric"]
    heads = ("row", "data", metric, "deviation", "seeds", "gain, points", "times real", "seconds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in rows:
        row, seeds = found[name], ", ".join(map(str, found[name]["seeds"]))
        if row["mean"] is None:
            lines.append(f"| `{name}` | {ROWS[name].title} | not measured yet |  |  |  |  |  |")
            continue
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.3f}"
        gain, seconds = points(row["gain"]), f"{row['seconds']:.0f}"
        ratio = f"{row['gain']['ratio']:.2f}" if row["gain"] and row["gain"]["ratio"] else ""
        details = ", ".join(f"{k} {v:.3f}" for k, v in row["details"].items())
        figure = f"{row['mean']:.3f}" + (f" ({details})" if details else "")
        lines.append(
            f"| `{name}` | {ROWS[name].title} | {figure} | {deviation} | {seeds} | {gain} | {ratio} | {seconds} |"
        )
    return lines


def _missing(rows: Mapping[str, Mapping[str, Any]], table: str, seeds: Sequence[int], images: int) -> list[str]:
    """The commands that measure what is not there."""
    own = [r for r in rows if r in TABLES[table].rows]
    if not any(rows[r]["seeds"] for r in own):
        return [
            "Not measured yet, and what measures it:", "", "```sh",
            f"python -m benchmarks.students --table {table} --images {images}", "```", "",
        ]  # fmt: skip
    lacking = {r: [s for s in seeds if s not in rows[r]["seeds"]] for r in own}
    commands = [
        f"python -m benchmarks.students --table {table} --row {r} --images {images}  # seeds {', '.join(map(str, left))}"
        for r, left in lacking.items()
        if left
    ]
    return ["Not measured yet, and what measures it:", "", "```sh", *commands, "```", ""] if commands else []


def _limit_lines(found: By, rows: Sequence[str]) -> list[str]:
    lines = ["| what limits the gain | difference, points |", "|---|---|"]
    for better, worse, meaning in PAIRS:
        if better in rows and worse in rows:
            own = points(difference(found[better], found[worse])) or "not measured yet"
            lines.append(f"| {meaning}: `{better}` - `{worse}` | {own} |")
    return lines
