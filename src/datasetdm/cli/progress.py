"""One look for all progress bars: what, how far, rate, time left."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from datasetdm.backbones import Backbone
    from datasetdm.backbones.catalogue import Model
    from datasetdm.exporters.options import Options
    from datasetdm.pipelines.fit import FitConfig
    from datasetdm.pipelines.generate import DatasetGenerator
    from datasetdm.readers import Reader
    from datasetdm.readers.overview import Summary
    from datasetdm.readers.source import ValidatingReader
    from datasetdm.store import Store

T = TypeVar("T")

console = Console(stderr=True)
"""Bars and notes go to the error stream; results to the output stream."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "it")
        if not speed:
            return Text("")
        return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}", style="cyan")


@contextmanager
def bars() -> Generator[Progress]:
    """A group of progress bars; `add_task(text, total=..., unit=...)` opens one."""
    columns = (SpinnerColumn(), TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), _Rate())
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as progress:
        yield progress


def track(items: Iterable[T], text: str, total: int, unit: str = "picture") -> Iterator[T]:
    """Iterate with a bar."""
    with bars() as progress:
        task = progress.add_task(text, total=total, unit=unit)
        for item in items:
            yield item
            progress.advance(task)


def fit_with_bars(reader: Reader, out: Path, backbone: Backbone, config: FitConfig) -> Mapping[str, float]:
    """Fit; returns the held-out figures."""
    from datasetdm.pipelines.fit import iter_fit

    figures: Mapping[str, float] = {}
    units = {"features": "picture", "steps": "step"}
    with bars() as progress:
        tasks = {name: progress.add_task(f"fit: {name}", total=None, unit=unit) for name, unit in units.items()}
        for event in iter_fit(reader, out, backbone=backbone, config=config):
            progress.update(tasks[event.stage], completed=event.done, total=event.total)
            figures = event.held_out or figures
    return figures


def generate_with_bars(generator: DatasetGenerator, out: Path, count: int) -> None:
    """Bring the store `out` to `count` samples."""
    with bars() as progress:
        task = None
        for done in generator.write(out, count):
            if task is None:
                task = progress.add_task("generate", total=max(count, done), completed=done, unit="picture")
            progress.update(task, completed=done)


def export_with_bars(reader: Reader, format: str, out: Path, options: Options | None = None) -> None:
    """Write samples in another format."""
    from datasetdm.exporters import iter_export
    from datasetdm.store.reviews import reviews_of

    said = reviews_of(reader).values()
    rejected, fixed = sum(r.verdict == "reject" for r in said), sum(r.fixes for r in said)
    if said:
        console.print(f"reviews: {rejected} rejected are left out, {fixed} with fixed labels")
    for _ in track(iter_export(reader, reader.labels, format, out, options), "export", len(reader) - rejected):
        pass


def gallery_with_bars(store: Store, path: Path, limit: int) -> None:
    """Write the page over a store's first samples."""
    from datasetdm.viewer.gallery import write_gallery

    shown = min(limit, len(store))
    title = f"{shown} of {len(store)} samples" if shown < len(store) else f"{shown} samples"
    for _ in track(write_gallery(islice(store, limit), store.labels, path, title), "gallery", shown):
        pass


def show_summary(found: Summary, title: str) -> None:
    """Print what is in labelled data as a table."""
    table = Table("label")
    table.add_column("images", justify="right")
    table.add_column("objects", justify="right")
    there = [n for n in found.labels.names if found.images[n]]
    for name in sorted(there, key=lambda n: -found.images[n]):
        table.add_row(Text(name), str(found.images[name]), str(found.objects[name]))
    out = Console()
    out.print(Text(f"{title}: {found.samples} images"))
    out.print(table)
    absent = [n for n in found.labels.names if not found.images[n]]
    if absent:
        more = f", and {len(absent) - 8} more" if len(absent) > 8 else ""
        out.print(Text(f"labels that no image has: {', '.join(absent[:8])}{more}"))
    tasks = ", ".join(f"{name} on {count}" for name, count in found.tasks.items())
    out.print(Text(f"annotations: {tasks or 'none'}"))
    sizes = ", ".join(f"{w}x{h} ({count})" for (h, w), count in found.sizes.most_common(5))
    more = f", and {len(found.sizes) - 5} other sizes" if len(found.sizes) > 5 else ""
    out.print(Text(f"sizes: {sizes}{more}"))
    for note in found.notes():
        out.print(Text(note))


def show_skipped(reader: ValidatingReader, most: int = 10) -> None:
    """Say how many bad samples were skipped, and what was wrong with the first ones."""
    if not reader.skipped:
        return
    console.print(Text(f"skipped because of errors in the data: {len(reader.skipped)}", style="yellow"))
    for error in reader.skipped[:most]:
        console.print(Text(f"  {error.what} ({error.where})"), soft_wrap=True)
    if len(reader.skipped) > most:
        console.print(Text(f"  ... and {len(reader.skipped) - most} more"))


def show_backbones(models: Sequence[Model]) -> None:
    """Print a catalogue of models, one row each."""
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
