"""Images and models of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datasetdm.downstream import STUDENTS
from datasetdm.downstream.files import TrainedModel, build_model
from datasetdm.errors import ConfigError
from factory import LABELS, make_sample


def published(name: str) -> Any:
    """An image processor as models of the hub have it: it keeps the aspect."""
    from transformers import GLPNImageProcessorPil, Mask2FormerImageProcessorPil

    return (
        GLPNImageProcessorPil()
        if name == "glpn"
        else Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field"), [("glpn", "depth"), ("mask2former-semantic", "semantic")])
def test_an_image_is_read_alike_beside_others_of_another_size(name: str, field: str) -> None:
    torch.manual_seed(0)
    student = STUDENTS.load(name)(LABELS)
    model = build_model(student, student.variants["tiny"], 64).eval()
    samples = [make_sample(f"s{i}", size, i) for i, size in enumerate([(64, 96), (64, 96), (96, 64)])]
    trained = TrainedModel(student, model, published(name))
    together, alone = ([getattr(found, field) for _, found in trained.annotate(samples, n)] for n in (16, 1))
    for a, b in zip(together, alone, strict=True):
        values = [m.depth if field == "depth" else m.confidence for m in (a, b)]
        assert np.allclose(*values, atol=2e-3), "no margin is read as a part of the image"


def test_sides_that_are_no_multiple_of_32() -> None:
    student = STUDENTS.load("mask2former")(LABELS)
    seen = student.processor(40)(images=[make_sample("a").image], return_tensors="pt")["pixel_values"]
    assert seen.shape[-2:] == student.frame(40), "the size that it was trained with"
    depth = STUDENTS.load("glpn")(LABELS)
    with pytest.raises(ConfigError, match="a glpn does not see images of 40 pixels"):
        build_model(depth, depth.variants["tiny"], 40)
