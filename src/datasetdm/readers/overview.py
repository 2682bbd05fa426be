"""What is in labelled data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from datasetdm.readers.regions import labels_in
from datasetdm.records import IGNORE, Labels, Sample
from datasetdm.records.point_names import mirror_pairs


@dataclass
class Summary:
    """What is in labelled data.

    Args:
        labels: the vocabulary.
        samples: number of images.
        unlabelled: images of which nothing is annotated, or an empty list of objects and nothing else.
        captions: prompts by origin; "labels" are composed of the true labels.
        tasks: annotations by task.
        images: by label, in how many images it occurs.
        objects: by label, crowds not counted.
        crowds: crowd regions.
        pixels, ignored: of all semantic maps, and how many of them have no label.
        depth: smallest and largest valid depth by unit.
        sizes: images by (height, width).
    """

    labels: Labels
    samples: int = 0
    unlabelled: int = 0
    captions: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    crowds: int = 0
    pixels: int = 0
    ignored: int = 0
    depth: dict[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def mirrored(self) -> dict[str, list[tuple[str, str]]]:
        """By label, the pairs of points that a mirrored image exchanges."""
        return {name: mirror_pairs(s.points) for name, s in self.labels.skeletons.items()}

    def notes(self) -> list[str]:
        """What is worth knowing beside the labels, one line each."""
        captions = ", ".join(_ORIGINS[k].format(n) for k, n in sorted(self.captions.items()))
        notes = [f"captions: {captions or 'none'}"]
        if self.unlabelled:
            notes.append(f"images without labels: {self.unlabelled} of {self.samples}")
        if self.ignored:
            notes.append(f"ignored pixels: {self.ignored / self.pixels:.1%} of the semantic maps")
        if self.crowds:
            notes.append(f"crowd regions: {self.crowds}, neither trained on nor scored")
        notes += constant_notes(self.images, bool(self.pixels))
        for unit, (low, high) in self.depth.items():
            notes.append(f"depth: {low:.3g} to {high:.3g} " + ("m" if unit == "metre" else "(relative, no unit)"))
        for points, names in _grouped(self.mirrored).items():
            pairs = ", ".join(f"{a} - {b}" for a, b in points)
            notes.append(f"points that a mirrored image exchanges ({', '.join(names)}): {pairs or 'none'}")
        return notes


_ORIGINS = {
    "caption": "{} from the data", "labels": "{} composed of the labels", "user": "{} prompts of a user",
    "grammar": "{} of a grammar", "language-model": "{} of a language model", "unknown": "{} of unknown origin",
}  # fmt: skip


def constant_notes(images: Mapping[str, int], semantic: bool) -> list[str]:
    """A note where semantic maps hold one label only, so that a decoder learns to find it everywhere.

    Args:
        images: by label, in how many images it occurs.
        semantic: whether there are semantic maps.
    """
    found = [name for name, count in images.items() if count]
    if not semantic or len(found) != 1:
        return []
    return [
        f"one label only ({found[0]}) and no background: a decoder fitted on these data finds it in every pixel; give the "
        "pixels of everything else a label of their own"
    ]


def _grouped(pairs: dict[str, list[tuple[str, str]]]) -> dict[tuple[tuple[str, str], ...], list[str]]:
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, own in pairs.items():
        groups.setdefault(tuple(own), []).append(name)
    return groups


def summarise(samples: Iterable[Sample], labels: Labels) -> Summary:
    """Read everything once."""
    summary = Summary(labels)
    for sample in samples:
        semantic, objects, depth = sample.semantic, sample.instances, sample.depth
        summary.samples += 1
        summary.unlabelled += semantic is None and depth is None and not (objects is not None and len(objects))
        if sample.prompt is not None and sample.prompt.text:
            summary.captions[sample.prompt.origin] += 1
        summary.tasks.update(n for n, r in sample.annotations.fields().items() if r is not None)
        summary.images.update(labels_in(sample.annotations, sample.labels))
        summary.sizes[sample.size] += 1
        if objects is not None:
            summary.objects.update(sample.labels.names[i] for i in objects.label_ids[~objects.crowd].tolist())
            summary.crowds += int(objects.crowd.sum())
        if semantic is not None:
            summary.pixels += semantic.ids.size
            summary.ignored += int((semantic.ids == IGNORE).sum())
        if depth is not None and depth.valid.any():
            known = depth.depth[depth.valid]
            low, high = summary.depth.get(depth.unit, (np.inf, 0.0))
            summary.depth[depth.unit] = (min(low, float(known.min())), max(high, float(known.max())))
    return summary
