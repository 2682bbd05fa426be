"""One look for all progress bars: what, how far, rate, time left."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from datasetdm.engines.progress import Progress, Report

T = TypeVar("T")

first_process = os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"
"""Of several that train together (torchrun), the first one alone talks."""

console = Console(stderr=True, quiet=not first_process)
"""Bars and notes go to the error stream; results to the output stream."""


def say(text: str, style: str = "") -> None:
    """A line for the reader, on the error stream; it is not wrapped, and brackets in it mean nothing."""
    console.print(Text(text, style), soft_wrap=True)


class _Rate(ProgressColumn):
    """Items per second since the bar appeared; items of one batch arrive together, so the last ones say nothing."""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "it")
        seconds = task.finished_time or task.elapsed
        speed = (task.completed - task.fields.get("begun", 0)) / seconds if seconds else 0
        if speed <= 0:
            return Text("")
        return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}", style="cyan")


@contextmanager
def bars() -> Generator[Report]:
    """What work tells how far it is: one bar per name."""
    columns = (SpinnerColumn(), TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), _Rate())
    with RichProgress(
        *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
    ) as progress:
        tasks: dict[str, TaskID] = {}

        def report(event: Progress) -> None:
            if event.what not in tasks:
                tasks[event.what] = progress.add_task(
                    event.what, total=event.total, completed=event.done, begun=event.done, unit=event.unit
                )
            progress.update(tasks[event.what], completed=event.done, total=event.total)

        yield report


def track(items: Iterable[T], what: str, total: int, unit: str = "image") -> Iterator[T]:
    """Iterate with a bar."""
    with bars() as report:
        for done, item in enumerate(items, 1):
            yield item
            report(Progress(what, done, total, unit))
