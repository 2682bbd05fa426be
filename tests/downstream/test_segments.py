"""Segments as what a Mask2Former learns, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datasetdm.backbones.canvas import Placement
from datasetdm.downstream.files import TrainedModel, build_model, save_model
from datasetdm.downstream.mask2former import Mask2Former, ObjectTargets
from datasetdm.downstream.matching import matched_loss
from datasetdm.downstream.segments import PanopticMask2Former, SemanticMask2Former
from datasetdm.metrics import panoptic
from datasetdm.records import IGNORE, Labels, Sample
from factory import make_sample

LABELS = Labels(("sky", "dog", "grass"), stuff=("sky", "grass"))
SAMPLE = make_sample("a", (32, 32), 0, LABELS)
PLACE = Placement((32, 32), (32, 32), (32, 32))


def perfect(target: ObjectTargets) -> Any:
    """A model whose queries are the segments of a target, and one that finds nothing."""
    count = len(target.labels)
    classes = torch.full((1, count + 1, len(LABELS) + 1), -9.0)
    classes[0, torch.arange(count), target.labels] = 9
    classes[0, count, -1] = 9
    masks = torch.cat([target.masks.float() * 40 - 20, torch.full((1, 32, 32), -20.0)])[None]
    out = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)

    class Model:
        device = "cpu"

        def __call__(self, pixel_values: torch.Tensor) -> Any:
            return out

    return Model()


def unknown(sample: Sample) -> Sample:
    """The sample with its top row unknown."""
    assert sample.semantic is not None
    ids = sample.semantic.ids.copy()
    ids[0] = IGNORE
    return replace(sample, semantic=replace(sample.semantic, ids=ids))


def test_semantic_segments_are_found_again() -> None:
    student, sample = SemanticMask2Former(LABELS), unknown(SAMPLE)
    assert sample.semantic is not None
    target = student.target(sample, PLACE)
    assert target.labels.tolist() == [0, 1, 2] and not target.known[0].any() and target.known[1:].all()
    (found,) = student.annotate(perfect(target), student.processor(32), [sample])
    assert found.semantic is not None
    assert np.array_equal(found.semantic.ids[1:], sample.semantic.ids[1:])


def test_panoptic_segments_are_found_again() -> None:
    """Things are objects, surroundings one segment per label; what is made of the prediction are the same segments."""
    student, sample = PanopticMask2Former(LABELS), unknown(SAMPLE)
    target = student.target(sample, PLACE)
    assert sorted(target.labels.tolist()) == [0, 1, 2] and not target.known[0].any()
    (found,) = student.annotate(perfect(target), student.processor(32), [sample])
    assert found.instances is not None and found.instances.label_ids.tolist() == [1]
    again, labels = panoptic(Sample("b", sample.image, LABELS, **found.fields()))
    ids, true = panoptic(sample)
    assert sorted(labels) == sorted(true)
    known = ids > 0
    assert np.array_equal(np.array([0, *labels])[again][known], np.array([0, *true])[ids][known])


@pytest.mark.parametrize("kind", [Mask2Former, SemanticMask2Former, PanopticMask2Former])
def test_a_folder_says_what_its_model_finds(kind: type[Mask2Former], tmp_path: Path) -> None:
    student = kind(LABELS)
    model = build_model(student, student.variants["tiny"], 32)
    story = {"labels": LABELS.to_json(), "trained": {"config": {"student": kind.name}}}
    save_model(tmp_path, model, student.processor(32), story)
    trained = TrainedModel.load(tmp_path, "cpu")
    assert type(trained.student) is kind
    ((_, found),) = trained.annotate([SAMPLE])
    assert all(getattr(found, name) is not None for name in kind.reads)


def test_an_image_in_a_crowd_and_predictions_that_are_not_finite() -> None:
    """A crop may lie in a crowd with an object in it: nothing is known there, so it has no part in the loss."""
    masks, classes = torch.randn(1, 2, 3, 4, 4), torch.zeros(1, 2, 3, 3)
    truth, labels = torch.ones(2, 1, 4, 4), [torch.tensor([1])] * 2
    known = torch.tensor([False, True])[:, None, None].expand(2, 4, 4)
    whole = matched_loss(masks, classes, [*truth], labels, known)
    alone = matched_loss(masks[:, 1:], classes[:, 1:], [*truth[1:]], labels[1:], known[1:])
    assert whole.isfinite() and torch.isclose(whole, alone)
    assert matched_loss(masks * torch.nan, classes, [*truth], labels, known).isnan(), "no error of the matching"
