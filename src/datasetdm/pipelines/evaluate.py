"""How good a P-Decoder, or a trained model, is on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from datasetdm.backbones import Backbone
from datasetdm.decoder.inference import annotate
from datasetdm.decoder.model import PDecoder
from datasetdm.downstream.files import TrainedModel
from datasetdm.errors import DataError
from datasetdm.metrics.meter import Meter
from datasetdm.metrics.panoptic import PanopticMeter
from datasetdm.records import IGNORE, Labels, Sample
from datasetdm.records.edits import relabel
from datasetdm.transforms import accepted
from datasetdm.transforms.reviews import reviews_of


def evaluate(
    decoder: PDecoder,
    backbone: Backbone,
    samples: Iterable[Sample],
    captions: bool = True,
    true_objects: bool = False,
    labels: Labels | None = None,
    composed: bool = False,
) -> dict[str, dict[str, float]]:
    """Figures of every task of the decoder that the samples have labels for, by task name; `panoptic`, too, where there
    are a semantic map and instances. Reviews of a store are applied, rejected samples are left out.

    Args:
        captions: read every image under its own caption; else, and where it has none, under an empty one.
        true_objects: measure only tasks that build on instances, on the samples' own (a decoder without instances always
            does).
        labels: what to look for; None is the decoder's own vocabulary.
        composed: read images also under captions that were composed from their true labels. Such figures are not those on new
            images: the captions say what is to be found.

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
    return compare(pairs, meters, own)


def evaluate_model(trained: TrainedModel, samples: Iterable[Sample], labels: Labels) -> dict[str, dict[str, float]]:
    """Figures of a trained model, by task; labels of data and model are matched by name, and what the model finds under a
    name that the data do not know is wrong.

    Args:
        samples: reviews of a store are applied, rejected ones are left out.
        labels: of the samples.

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
    return compare(pairs, meters, labels)


def compare(
    pairs: Iterable[tuple[Sample, Sample]], meters: Mapping[str, Meter], own: Labels
) -> dict[str, dict[str, float]]:
    """Figures of (true, predicted) pairs by the meters' names, without those that never had anything to compare.

    Args:
        own: the labels of all predictions.

    Raises:
        DataError: a true sample with other labels.
    """
    compared: set[str] = set()
    for true, predicted in pairs:
        known = {n for n, m in meters.items() if _has(true, m) and _has(predicted, m)}
        if true.labels.names != own.names and any(meters[n].by_label for n in known):
            raise other_labels(true.labels, own, f"sample {true.key!r}")
        for name in known:
            meters[name].update(predicted, true)
        compared |= known
    return {name: meter.compute() for name, meter in meters.items() if name in compared}


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
    shown = [
        ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") or "none" for names in alone
    ]
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
