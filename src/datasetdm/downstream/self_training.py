"""Self-training on images without labels, for students that give every pixel a label.

After UniMatch (Yang et al. 2023, arXiv 2208.09910) and UniMatch V2 (Yang et al. 2024, arXiv 2410.10777): a teacher labels a weak
view of an image (mirrored, cropped), and the student learns these labels on a strong view of it (other colours, grey, blurred,
boxes pasted from other images), at the pixels where the teacher is sure. The teacher is the moving average of the student's
weights, which is also what is saved. Of UniMatch's two strong views and its perturbed features there is one strong view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from datasetdm.downstream import Student, normalise
from datasetdm.training.augment import strong_batch, weak_batch

PASTE_PROBABILITY, PASTE_AREA, PASTE_ASPECT = 0.5, (0.02, 0.4), (0.3, 1 / 0.3)
"""Of the boxes that CutMix pastes (UniMatch's): the area is a fraction of the image, the aspect height by width."""


def self_training_loss(
    student: Student[Any], model: Any, teacher: Any, processor: Any, images: Float[Tensor, "b 3 H W"], threshold: float,
    seed: int,
) -> Float[Tensor, ""]:  # fmt: skip
    """What the student has to learn from the teacher about images without labels.

    Args:
        student: how models of its kind are read.
        model: the student's, which learns.
        teacher: a model of the same kind in evaluation mode, which does not.
        processor: the image processor of both.
        images: 0..1.
        threshold: pixels of a lower confidence of the teacher teach nothing.
        seed: of the views.
    """
    weak = weak_batch(images, seed)
    with torch.no_grad():
        confidence, ids = student.logits(teacher, normalise(weak, processor)).softmax(1).max(1)
    strong = strong_batch(weak, seed)
    boxes, other = paste_boxes(len(images), (images.shape[-2], images.shape[-1]), seed)
    boxes, other = boxes.to(images.device), other.to(images.device)
    mixed = torch.where(boxes[:, None], strong[other], strong)
    ids, confidence = torch.where(boxes, ids[other], ids), torch.where(boxes, confidence[other], confidence)
    return sure_cross_entropy(student.logits(model, normalise(mixed, processor)), ids, confidence, threshold)


def sure_cross_entropy(
    logits: Float[Tensor, "b l h w"], ids: Int[Tensor, "b h w"], confidence: Float[Tensor, "b h w"], threshold: float
) -> Float[Tensor, ""]:
    """Cross-entropy over the pixels of at least this confidence, as a mean over all pixels: it grows with the sure ones."""
    return (F.cross_entropy(logits, ids, reduction="none") * (confidence >= threshold)).mean()


def paste_boxes(count: int, size: tuple[int, int], seed: int) -> tuple[Bool[Tensor, "b h w"], Int[Tensor, "b"]]:
    """CutMix (Yun et al. 2019): by image, the pixels of a random box, or none, and the number of the image that they come from.

    Args:
        count: of images.
        size: (height, width) of the images.
    """
    rng = np.random.default_rng(seed)
    boxes = np.zeros((count, *size), bool)
    for i in np.flatnonzero(rng.random(count) < PASTE_PROBABILITY):
        area, aspect = rng.uniform(*PASTE_AREA), np.exp(rng.uniform(*np.log(PASTE_ASPECT)))
        fractions = np.array([(area * aspect) ** 0.5, (area / aspect) ** 0.5]).clip(max=1)  # of height and width
        (top, left), (high, wide) = rng.random(2) * (1 - fractions) * size, fractions * size
        boxes[i, int(top) : int(top + high), int(left) : int(left + wide)] = True
    return torch.from_numpy(boxes), torch.from_numpy(rng.permutation(count))
