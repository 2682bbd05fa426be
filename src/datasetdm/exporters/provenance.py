"""What made an exported data set: `provenance.json` beside the format's own files, which readers of no format look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasetdm import __version__
from datasetdm.exporters.target import Target
from datasetdm.io.files import write_json
from datasetdm.records import Sample
from datasetdm.store.store import Store
from datasetdm.transforms import Transform

PROVENANCE = "provenance.json"
"""The file's name in every export."""


@dataclass
class ExportProvenance:
    """What the file says: where the samples come from, and what made them.

    Args:
        store: that is exported, if it is one; it remembers its stream, its models and their versions.
        transforms: what was done to its samples.
    """

    store: Store | None
    transforms: Sequence[Transform]
    images: int = 0
    models: dict[str, Counter[str]] = field(default_factory=lambda: {"backbone": Counter(), "decoder": Counter()})

    def counted(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples, and beside them how many each model made, by the first digits of its hash."""
        for sample in samples:
            self.images += 1
            for name, count in self.models.items():
                if found := getattr(sample.provenance, name):
                    count[found] += 1
            yield sample

    def write(self, format: str, target: Target) -> None:
        """Write the file of an export whose samples were all counted."""
        made = {} if self.store is None else {"stream": self.store.stream, "made": self.store.made}
        value: dict[str, Any] = {
            "format": format,
            "exported_by": {"datasetdm": __version__},
            "licence": target.licence,
            "images": self.images,
            "images_by_model": {name: dict(count) for name, count in self.models.items() if count},
            "transforms": [t.origin() for t in self.transforms],
            **made,
        }
        write_json(target.folder / PROVENANCE, value)
