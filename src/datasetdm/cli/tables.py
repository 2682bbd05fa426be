"""Tables and summaries: what is in data, what a command made, what a recipe would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datasetdm.cli.bars import console, say
from datasetdm.engines.progress import Measured, Outcome, Yield, label_table
from datasetdm.errors import DataError, first_names

if TYPE_CHECKING:
    from datasetdm.backbones.catalogue import Model
    from datasetdm.readers.overview import Summary
    from datasetdm.recipe.schema import Recipe

MOST_LABELS = 60
"""Labels in a table of figures."""
MOST = 10
"""Labels and skipped samples that a summary names."""


def show_outcome(outcome: Outcome, seconds: float) -> None:
    """What a command made, counts per label, what was skipped and why, and the command to type next."""
    say(f"{outcome.made}, {duration(seconds)}")
    for note in outcome.notes:
        say(f"note: {note}", "yellow")
    if outcome.labels:
        ranked = sorted(outcome.labels.items(), key=lambda pair: (-pair[1], pair[0]))
        more = f", and {len(ranked) - MOST} more labels" if len(ranked) > MOST else ""
        say(f"{outcome.unit}s per label: " + ", ".join(f"{n} {c}" for n, c in ranked[:MOST]) + more)
    if outcome.by_label:
        show_labels(outcome.by_label)
    show_skipped(outcome.skipped)
    if outcome.passed is not None:
        show_yield(outcome.passed)
    if outcome.next:
        say(f"next: {outcome.next}")


def show_labels(by_label: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """The first figure of each task per label, the worst labels first."""
    columns, rows = label_table(by_label, first=True)
    table = Table("label")
    for title in columns:
        table.add_column(title, justify="right")
    for label, cells in rows[:MOST_LABELS]:
        table.add_row(Text(label), *cells)
    console.print(table)
    if len(rows) > MOST_LABELS:
        say(f"... and {len(rows) - MOST_LABELS} better labels; --out DIR writes them all")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def show_skipped(errors: Sequence[DataError]) -> None:
    """How many bad samples were skipped, and what was wrong with the first ones."""
    if not errors:
        return
    say(f"skipped because of errors in the data: {len(errors)}", "yellow")
    for error in errors[:MOST]:
        say(f"  {error.what} ({error.where})")
    if len(errors) > MOST:
        say(f"  ... and {len(errors) - MOST} more")


def show_yield(found: Yield) -> None:
    """How many samples were accepted, why the others were not, and what that leaves of every label."""
    table = Table("reason")
    table.add_column("samples", justify="right")
    for reason, count in found.reasons.most_common():
        table.add_row(Text(reason), str(count))
    console.print(f"{found.accepted} of {found.samples} samples are accepted ({_part(found.accepted, found.samples)})")
    if not found.reasons:
        return
    console.print(table)
    table = Table("label")
    for title in ("samples", "accepted", "yield"):
        table.add_column(title, justify="right")
    for label, count in sorted(found.labels.items(), key=lambda pair: _part(found.accepted_labels[pair[0]], pair[1])):
        kept = found.accepted_labels[label]
        table.add_row(Text(label), str(count), str(kept), _part(kept, count))
    console.print(table)


def _part(some: int, of: int) -> str:
    return f"{some / max(1, of):4.0%}"


def show_figures(figures: Mapping[str, object]) -> None:
    """Held-out figures, one per line."""
    for name, value in figures.items():
        say(f"  {name}: {value}")


def show_summary(found: Summary, title: str) -> None:
    """What is in labelled data."""
    table = Table("label")
    table.add_column("images", justify="right")
    table.add_column("objects", justify="right")
    there = [n for n in found.labels.names if found.images[n]]
    for name in sorted(there, key=lambda n: -found.images[n]):
        table.add_row(Text(name), str(found.images[name]), str(found.objects[name]))
    out = Console()
    out.print(Text(f"{title}: {found.samples} images"))
    out.print(table)
    if absent := [n for n in found.labels.names if not found.images[n]]:
        out.print(Text(f"labels that no image has: {first_names(absent)}"))
    tasks = ", ".join(f"{name} on {count}" for name, count in found.tasks.items())
    out.print(Text(f"annotations: {tasks or 'none'}"))
    sizes = ", ".join(f"{w}x{h} ({count})" for (h, w), count in found.sizes.most_common(5))
    more = f", and {len(found.sizes) - 5} other sizes" if len(found.sizes) > 5 else ""
    out.print(Text(f"sizes: {sizes}{more}"))
    for note in found.notes():
        out.print(Text(note))


def show_backbones(models: Sequence[Model]) -> None:
    """A catalogue of models, one row each."""
    table = Table("model", "pipeline", "pixels", "steps", "guidance", "negative", "t", "reads", "licence", "status")
    for m in models:
        family = m.family
        cells = (
            m.name, m.pipeline.removesuffix("Pipeline"), f"{m.side}x{m.side}", str(m.steps), f"{m.guidance:g}",
            "yes" if m.guidance > 1 and not m.embedded else "no", ",".join(map(str, family.timesteps)), family.reads,
            m.licence + (" (gated)" if m.gated else ""), m.status,
        )  # fmt: skip
        table.add_row(*map(Text, cells))
    Console(width=None if Console().is_terminal else 250).print(table)


def show_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Recipes, one row each: name, what it does, its kinds of stages."""
    table = Table("recipe", "what it does", "stages")
    for name, recipe in recipes.items():
        kinds = dict.fromkeys(stage.kind for stage in recipe.stages.values())
        table.add_row(Text(name), Text(recipe.description), Text(" ".join(kinds)))
    Console(width=None if Console().is_terminal else 160).print(table)


Cells = tuple[str, str, int | None, str, float | None, float | None, str]
"""A stage of a plan: name, kind, images, what is done, seconds, bytes, place."""


def show_plan(rows: Sequence[Cells]) -> None:
    """What a recipe would do: one row per stage, and the sums."""
    table = Table("stage", "kind", "images", "what", "time", "disk", "place", show_footer=True)
    for name, kind, count, what, seconds, size, place in rows:
        cells = ("" if count is None else str(count), what, _about(seconds, duration), _about(size, _size), place)
        table.add_row(*map(Text, (name, kind, *cells)))
    times, sizes = [r[4] for r in rows], [r[5] for r in rows]
    table.columns[3].footer = "in all"
    table.columns[4].footer = _about(None if None in times else sum(t or 0 for t in times), duration)
    table.columns[5].footer = _about(None if None in sizes else sum(s or 0 for s in sizes), _size)
    Console(width=None if Console().is_terminal else 160).print(table)


def show_measured(found: Mapping[str, Measured | str]) -> None:
    """What was measured of each stage, and how far that is extrapolated; or why it was not."""
    for name, one in found.items():
        if isinstance(one, str):
            say(f"{name}: not measured: {one}", "yellow")
            continue
        device = "processor" if one.device == "cpu" else "GPU"
        say(
            f"{name}: {one.what} in {one.took:.1f} s on {one.device}, {one.times:,.1f} times as much is left: "
            f"about {duration(one.seconds)} by {one.workers} process{'es' * (one.workers > 1)}, "
            f"{one.device_seconds / 3600:.2f} {device} hours, {_size(one.bytes)}; its models load in {one.loading:.0f} s"
        )


def _about(value: float | None, show: Callable[[float], str]) -> str:
    return "unknown" if value is None else "" if not value else f"about {show(value)}"


def _size(value: float) -> str:
    return f"{value / 1e6:.1f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"
