"""What work says of itself while it runs, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datasetdm.errors import DataError

if TYPE_CHECKING:  # help must answer at once
    from datasetdm.io.remote import Place
    from datasetdm.records import Sample

FLUSH_SECONDS = 30
"""Finished samples are on disk after at most this time (or when the run ends, whatever ends it)."""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of the work called `what`; total is None where nobody knows it."""

    what: str
    done: int
    total: int | None
    unit: str = "image"


@dataclass
class Yield:
    """How many samples were accepted, in all and per label, and why the others were not."""

    samples: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    """Samples per label."""
    accepted_labels: Counter[str] = field(default_factory=Counter)

    def add(self, labels: Collection[str], reasons: Collection[str]) -> None:
        """Count one sample: the labels that it shows, and the reasons against it."""
        self.samples += 1
        self.labels.update(labels)
        self.reasons.update(reasons)
        if not reasons:
            self.accepted += 1
            self.accepted_labels.update(labels)


@dataclass(frozen=True)
class Outcome:
    """What a stage made.

    Args:
        out: where it lies.
        made: one sentence.
        count: of images, or of what `unit` says.
        labels: how many of those that were made now hold each label.
        figures: what was measured, by task.
        by_label: the same by task, label and figure.
        skipped: errors in the data that were skipped.
        notes: what else the user should know.
        unit: what is counted.
        next: a command to type now.
        passed: how many samples of a store passed the filters, where there are some.
        complete: False if the same work would go on, for instance past a limit of cost.
    """

    out: Place
    made: str
    count: int = 0
    labels: Mapping[str, int] = field(default_factory=Counter)
    figures: Mapping[str, object] = field(default_factory=dict)
    by_label: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    skipped: Sequence[DataError] = ()
    notes: Sequence[str] = ()
    unit: str = "image"
    next: str = ""
    passed: Yield | None = None
    complete: bool = True


@dataclass(frozen=True)
class Measured:
    """What a stage made to be timed, and what follows from it for all that is left.

    Args:
        what: was made, in words.
        took: seconds, models loaded and warm.
        times: how many times as much work is left.
        workers: that share it.
        loading: seconds until the models were there.
        device: of the models, "cpu" or "cuda".
        device_seconds: of a GPU, or of processor cores, in all.
        bytes: on the disk, in all.
    """

    what: str
    took: float
    times: float
    workers: int
    loading: float
    device: str
    device_seconds: float
    bytes: float

    @property
    def seconds(self) -> float:
        """In all, from beginning to end."""
        return self.loading + self.took * self.times / self.workers


@dataclass
class Seen:
    """Samples that were made, counted.

    Args:
        samples: how many.
        labels: how many of them hold each label.
        composed: how many were read under captions composed of their labels.
        cut: how many prompts or captions are longer than the text encoders read; `first_cut` shows the first.
    """

    samples: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    composed: int = 0
    cut: int = 0
    first_cut: str = ""

    def add(self, sample: Sample) -> None:
        """Count one, but for its caption's length."""
        self.samples += 1
        self.labels.update(sample.labels.names[i] for i in sample.annotations.labels_in())
        self.composed += sample.prompt is not None and sample.prompt.composed

    def update(self, other: Seen) -> None:
        """Count those of another seen, too."""
        self.samples += other.samples
        self.labels.update(other.labels)
        self.composed += other.composed
        self.cut += other.cut
        self.first_cut = self.first_cut or other.first_cut

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Seen:
        """What `to_json` gave."""
        own = dict(value)
        return cls(labels=Counter(own.pop("labels")), **own)


Report = Callable[[Progress], None]
"""Receives every report of how far the work is."""


def label_table(
    by_label: Mapping[str, Mapping[str, Mapping[str, float]]], first: bool = False
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """(columns, rows) of figures by label, the worst by the first column first.

    Args:
        by_label: by task, label and figure.
        first: only the first figure of each task.
    """
    kept = 1 if first else None
    columns = {(task, n): None for task, rows in by_label.items() for row in rows.values() for n in [*row][:kept]}
    labels = {label: None for rows in by_label.values() for label in rows}
    values = {n: [by_label[task].get(n, {}).get(name) for task, name in columns] for n in labels}
    ranked = sorted(labels, key=lambda n: [v is None or v for v in values[n][:1]])
    cells = {n: ["" if v is None else f"{v:.3f}" for v in values[n]] for n in ranked}
    return [f"{task} {name}" for task, name in columns], [(n, cells[n]) for n in ranked]
