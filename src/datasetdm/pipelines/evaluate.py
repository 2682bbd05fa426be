"""How good a P-Decoder, or a trained model, is on labelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        DataError: a sample with other labels.
    """
    fields = {task.field for task in decoder.tasks.values()}
    true_objects = true_objects or any(set(task.needs) - fields for task in decoder.tasks.values())
    meters: dict[str, Meter] = {n: t.meter() for n, t in decoder.tasks.items() if t.needs or not true_objects}
    if not true_objects:
        meters["panoptic"] = PanopticMeter()
    for reviews in reviews_of(samples):
        samples = reviews(samples)
    own = (labels or decoder.config.labels).names
    read = (s if composed else _own_caption(s) for s in accepted(samples))
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
    return compare(pairs, meters, labels.names)


def compare(
    pairs: Iterable[tuple[Sample, Sample]], meters: Mapping[str, Meter], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Figures of (true, predicted) pairs by the meters' names, without those that never had anything to compare.

    Args:
        names: of the labels of all predictions.

    Raises:
        DataError: a true sample with other labels.
    """
    compared: set[str] = set()
    for true, predicted in pairs:
        known = {n for n, m in meters.items() if _has(true, m) and _has(predicted, m)}
        if true.labels.names != tuple(names) and any(meters[n].by_label for n in known):
            raise DataError(
                "the data's labels are not the decoder's",
                where=f"sample {true.key!r}, labels {', '.join(true.labels.names[:6])}, ...",
                expected=f"{len(names)} labels in this order: {', '.join(names[:6])}, ...",
                remedy="use data with the labels that the decoder was fitted on",
            )
        for name in known:
            meters[name].update(predicted, true)
        compared |= known
    return {name: meter.compute() for name, meter in meters.items() if name in compared}


def _own_caption(sample: Sample) -> Sample:
    """The sample without a caption that was composed from its labels."""
    return replace(sample, prompt=None) if sample.prompt is not None and sample.prompt.composed else sample


def _has(sample: Sample, meter: Meter) -> bool:
    return all(getattr(sample, field) is not None for field in meter.reads)
