"""How good a P-Decoder, or a trained model, is on labelled images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datasetdm.backbones import Backbone
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder
from datasetdm.downstream.files import TrainedModel
from datasetdm.errors import DataError, first_names, unknown_name
from datasetdm.metrics.meter import Meter
from datasetdm.metrics.panoptic import PanopticMeter
from datasetdm.records import BACKGROUND, IGNORE, Annotations, Labels, Sample
from datasetdm.records.edits import relabel
from datasetdm.transforms import accepted
from datasetdm.transforms.reviews import reviews_of

OnPair = Callable[[Sample, Sample, Mapping[str, float]], None]
"""Receives every true sample, what was predicted for it, and the scores of this image alone by task, 0 to 1, more is better."""


@dataclass
class Counts:
    """What was compared.

    Args:
        images: with something to compare.
        objects: of the truth that count, which those of crowds do not.
        crowds: of the truth.
        pixels: of the images.
        unlabelled: pixels that the truth's semantic maps ignore.
        without_depth: pixels whose true depth is unknown.
    """

    images: int = 0
    objects: int = 0
    crowds: int = 0
    pixels: int = 0
    unlabelled: int = 0
    without_depth: int = 0

    def add(self, size: tuple[int, int], compared: Annotations) -> None:
        """Count one image by what was compared of its truth."""
        self.images += 1
        self.pixels += size[0] * size[1]
        if compared.instances is not None:
            self.crowds += int(compared.instances.crowd.sum())
            self.objects += int((~compared.instances.crowd).sum())
        if compared.semantic is not None:
            self.unlabelled += int((compared.semantic.ids == IGNORE).sum())
        if compared.depth is not None:
            self.without_depth += int((~compared.depth.valid).sum())


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Args:
        figures: by task and figure.
        by_label: by task, label and figure; without tasks whose figures do not depend on labels.
        counts: of what was compared.
    """

    figures: dict[str, dict[str, float]]
    by_label: dict[str, dict[str, dict[str, float]]]
    counts: Counts


def evaluate(
    decoder: PDecoder, backbone: Backbone, samples: Iterable[Sample], **options: Any
) -> dict[str, dict[str, float]]:
    """The figures of `evaluate_decoder`, by task. options: its own, of which `captions` and `labels` are needed most."""
    return evaluate_decoder(decoder, backbone, samples, **options).figures


def evaluate_decoder(
    decoder: PDecoder,
    backbone: Backbone,
    samples: Iterable[Sample],
    captions: bool = True,
    true_objects: bool = False,
    labels: Labels | None = None,
    composed: bool = False,
    unseen: Sequence[str] = (),
    on_pair: OnPair | None = None,
) -> Evaluation:
    """Figures of every task of the decoder that the samples have labels for; `panoptic`, too, where there are a semantic map
    and instances. Reviews of a store are applied, rejected samples are left out.

    Args:
        captions: read every image under its own caption; else, and where it has none, under an empty one.
        true_objects: measure only tasks that build on instances, on the samples' own (a decoder without instances always
            does).
        labels: what to look for; None is the decoder's own vocabulary.
        composed: read images also under captions that were composed from their true labels. Such figures are not those on new
            images: the captions say what is to be found.
        unseen, on_pair: as in `compare`.

    Raises:
        DataError: a sample with labels of other names. Their order, capitals and outer spaces do not matter.
    """
    fields = {task.field for task in decoder.tasks.values()}
    true_objects = true_objects or any(set(task.needs) - fields for task in decoder.tasks.values())
    meters: dict[str, Meter] = {n: t.meter() for n, t in decoder.tasks.items() if t.needs or not true_objects}
    if not true_objects:
        meters["panoptic"] = PanopticMeter()
    for reviews in reviews_of(samples):
        samples = reviews(samples)
    own = labels or decoder.config.labels
    named = (in_order_of(s, own) for s in accepted(samples))
    read = (s if composed else _own_caption(s) for s in named)
    pairs = annotate(decoder, backbone, read, captions, true_objects=true_objects, labels=labels)
    return compare(pairs, meters, own, unseen, on_pair)


def evaluate_model(
    trained: TrainedModel,
    samples: Iterable[Sample],
    labels: Labels,
    unseen: Sequence[str] = (),
    on_pair: OnPair | None = None,
) -> Evaluation:
    """Figures of a trained model, by task; labels of data and model are matched by name, and what the model finds under a
    name that the data do not know is wrong.

    Args:
        samples: reviews of a store are applied, rejected ones are left out.
        labels: of the samples.
        unseen, on_pair: as in `compare`.

    Raises:
        DataError: no label in common.
    """
    for reviews in reviews_of(samples):
        samples = reviews(samples)
    names = trained.student.labels.names
    ids = [labels.index.get(n, IGNORE) for n in names]
    meters = trained.student.meters()
    if any(m.by_label for m in meters.values()) and all(i == IGNORE for i in ids):
        raise DataError(
            "the data have no label of the model's",
            where=f"labels {', '.join(labels.names[:6])}, ...",
            expected=f"some of: {', '.join(names[:6])}, ...",
            remedy="rename labels with the transform remap-labels",
        )
    pairs = ((true, relabel(found, labels, ids)) for true, found in trained.annotate(accepted(samples)))
    return compare(pairs, meters, labels, unseen, on_pair)


def compare(
    pairs: Iterable[tuple[Sample, Sample]],
    meters: Mapping[str, Meter],
    own: Labels,
    unseen: Sequence[str] = (),
    on_pair: OnPair | None = None,
) -> Evaluation:
    """Figures of (true, predicted) pairs by the meters' names, without those that never had anything to compare.

    Args:
        own: the labels of all predictions.
        unseen: those without labelled images. Figures that depend on labels also get their means over seen and unseen labels,
            and the harmonic mean of both; the background is neither.
        on_pair: receives every pair.

    Raises:
        ConfigError: an unseen label that is none of `own`.
        DataError: a true sample with other labels.
    """
    if odd := next((n for n in unseen if n not in own.index), None):
        raise unknown_name("label", odd, own.names)
    compared: set[str] = set()
    counts = Counts()
    for true, predicted in pairs:
        known = {n: m for n, m in meters.items() if _has(true, m) and _has(predicted, m)}
        if true.labels.names != own.names and any(m.by_label for m in known.values()):
            raise other_labels(true.labels, own, f"sample {true.key!r}")
        for meter in known.values():
            meter.update(predicted, true)
        compared |= known.keys()
        if known:
            fields = {f for m in known.values() for f in m.reads}
            counts.add(true.size, Annotations(**{f: getattr(true, f) for f in fields}))
        if known and on_pair is not None:
            on_pair(true, predicted, scores_of(true, predicted, known))
    measured = {name: meter for name, meter in meters.items() if name in compared}
    figures = {name: meter.compute() for name, meter in measured.items()}
    by_label = {
        name: {own.names[i]: row for i, row in meter.by_id().items()}
        for name, meter in measured.items()
        if meter.by_label
    }
    if unseen:
        for name, rows in by_label.items():
            figures[name] |= zero_shot(rows, unseen, measured[name].better[0])
    return Evaluation(figures, by_label, counts)


def scores_of(true: Sample, predicted: Sample, meters: Mapping[str, Meter]) -> dict[str, float]:
    """The figure that stands for all of each meter, over one image; none where the truth has nothing to find."""
    scores = {}
    for name, meter in meters.items():
        alone = type(meter)()
        alone.update(predicted, true)
        figure, more = meter.better
        value = alone.compute()[figure]
        if math.isfinite(value):
            scores[name] = value if more else 1 - value
    return scores


def zero_shot(rows: Mapping[str, Mapping[str, float]], unseen: Sequence[str], name: str) -> dict[str, float]:
    """Means of the first figure over seen and unseen labels and their harmonic mean, called `NAME_seen` and so on; nothing
    where either group has no label in the truth.

    Args:
        rows: figures by label.
    """
    values = {label: next(iter(row.values())) for label, row in rows.items() if label != BACKGROUND}
    groups = [[v for label, v in values.items() if (label in unseen) == new] for new in (False, True)]
    if not all(groups):
        return {}
    seen, new = (sum(g) / len(g) for g in groups)
    harmonic = 2 * seen * new / (seen + new) if seen + new else 0.0
    return {f"{name}_seen": seen, f"{name}_unseen": new, f"{name}_harmonic": harmonic}


def in_order_of(sample: Sample, labels: Labels) -> Sample:
    """The sample in another vocabulary of the same names; as it is, where the names differ."""
    if sample.labels.names == labels.names or not same_names(sample.labels, labels):
        return sample
    index = {_plain(n): i for i, n in enumerate(labels.names)}
    return relabel(sample, labels, [index[_plain(n)] for n in sample.labels.names])


def same_names(labels: Labels, others: Labels) -> bool:
    """Whether two vocabularies have the same names, in whatever order; case and outer spaces do not count."""
    return {*map(_plain, labels.names)} == {*map(_plain, others.names)}


def _plain(name: str) -> str:
    return name.strip().lower()


def other_labels(found: Labels, own: Labels, where: str) -> DataError:
    """The error of data with other labels than the decoder's: what each of them has alone."""
    sides = {_plain(n): n for n in found.names}, {_plain(n): n for n in own.names}
    alone = [[n for k, n in one.items() if k not in other] for one, other in (sides, sides[::-1])]
    shown = [first_names(names) or "none" for names in alone]
    return DataError(
        f"the data's labels are not the decoder's: only the data have {shown[0]}; only the decoder has {shown[1]}",
        where=where,
        expected=f"the decoder's {len(own)} labels, in any order",
        remedy="rename the data's labels (transform remap-labels of a recipe), or fit a decoder on them",
    )


def require_comparable(decoder: PDecoder, sample: Sample) -> None:
    """Refuse data whose labels are not the decoder's, by their first sample, before a backbone is loaded.

    Raises:
        DataError: it has annotations by label that the decoder gives, too, under other names.
    """
    meters = [t.meter() for t in decoder.tasks.values()]
    by_label = any(m.by_label and all(getattr(sample, f) is not None for f in m.reads) for m in meters)
    if by_label and not same_names(sample.labels, decoder.config.labels):
        raise other_labels(sample.labels, decoder.config.labels, f"sample {sample.key!r}")


def _own_caption(sample: Sample) -> Sample:
    """The sample without a caption that was composed from its labels."""
    return replace(sample, prompt=None) if sample.prompt is not None and sample.prompt.composed else sample


def _has(sample: Sample, meter: Meter) -> bool:
    return all(getattr(sample, field) is not None for field in meter.reads)
