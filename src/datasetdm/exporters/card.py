"""The description of a dataset on the Hugging Face hub: what is in it, where it comes from, under which licence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import yaml

from datasetdm.records import Labels, Sample

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
TASKS = {"semantic": "image-segmentation", "instances": "object-detection", "depth": "depth-estimation",
         "keypoints": "keypoint-detection"}  # fmt: skip
MOST = 8
"""Values of a piece of provenance that are listed; more are only counted as many."""


@dataclass
class Card:
    """Counts that grow with the samples; memory that does not."""

    labels: Labels
    tasks: Counter[str] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    objects: Counter[int] = field(default_factory=Counter)
    origins: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, sample: Sample, objects: Sequence[int]) -> None:
        """Add a sample with the label ids of its objects."""
        annotations = sample.annotations
        self.tasks.update(name for name, record in annotations.fields().items() if record is not None)
        self.objects.update(objects)
        self.images.update(annotations.labels_in())
        for name, value in sample.provenance.to_json().items():
            values = self.origins.setdefault(name, Counter())
            if isinstance(value, str) and (value in values or len(values) <= MOST):
                values[value] += 1

    def text(self, counts: Mapping[str, int], licence: str) -> str:
        """The card. counts: rows by split.

        It names no `configs`: the files' names say what they are, and with `configs` `datasets` 5 takes a folder of the same
        name and card for the same data and returns what it cached of an earlier one.
        """
        total = sum(counts.values())
        head = {
            "license": licence,
            "task_categories": sorted({TASKS[t] for t in self.tasks if t in TASKS}),
            "tags": ["synthetic", "datasetdm"],
            "size_categories": [next((s for n, s in SIZES if total < n), "n>10M")],
        }
        rows = sorted(range(len(self.labels)), key=lambda i: -self.images[i])
        labels = "\n".join(
            f"| {i} | {_cell(self.labels.names[i])} | {self.images[i]} | {self.objects[i]} |" for i in rows
        )
        splits = "\n".join(f"- `{name}`: {n}" for name, n in counts.items())
        tasks = ", ".join(f"{t} ({n})" for t, n in sorted(self.tasks.items())) or "none"
        return _TEXT.format(
            head=yaml.safe_dump(head, sort_keys=False, allow_unicode=True), total=total, splits=splits, tasks=tasks,
            labels=labels, origin=self._origin(), licence=_cell(licence),
        )  # fmt: skip

    def _origin(self) -> str:
        listed = {k: v for k, v in self.origins.items() if 0 < len(v) <= MOST}
        lines = [
            f"- {_cell(k)}: " + ", ".join(f"{_cell(n)} ({c})" for n, c in v.most_common()) for k, v in listed.items()
        ]
        return "\n".join(lines) or "Not recorded."


def _cell(text: str) -> str:
    """Text that Markdown and HTML take literally, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("|", "\\|").replace("`", "\\`").replace("[", "\\[")


_TEXT = """---
{head}---

# Annotated images

{total} images with annotations, written by datasetdm.

{splits}

Annotations (images that have them): {tasks}.

## Columns

`image`; `caption`; `semantic`: label ids (ignored: 255, or 65535 with more than 255 labels); `depth`: 16 bits, 1/256 metre per
step, 0 unknown; `objects`: `bbox` (x, y, width, height in pixels), `category`, `score`, `area`, `segmentation` (COCO's
compressed run lengths), `keypoints` (x, y, visibility of each point).

## Labels

| id | label | images | objects |
|---|---|---|---|
{labels}

## Provenance

{origin}

## Licence

{licence}
"""
