"""What work says of itself while it runs, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasetdm.errors import DataError


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of the work called `what`; total is None where nobody knows it."""

    what: str
    done: int
    total: int | None
    unit: str = "image"


@dataclass(frozen=True)
class Outcome:
    """What a stage made.

    Args:
        out: where it lies.
        made: one sentence.
        count: of images, or of what `unit` says.
        labels: how many of those that were made now hold each label.
        figures: what was measured, by task.
        skipped: errors in the data that were skipped.
        notes: what else the user should know.
        unit: what is counted.
        next: a command to type now.
        complete: False if the same work would go on, for instance past a limit of cost.
    """

    out: Path
    made: str
    count: int = 0
    labels: Mapping[str, int] = field(default_factory=Counter)
    figures: Mapping[str, object] = field(default_factory=dict)
    skipped: Sequence[DataError] = ()
    notes: Sequence[str] = ()
    unit: str = "image"
    next: str = ""
    complete: bool = True


Report = Callable[[Progress], None]
"""Receives every report of how far the work is."""
