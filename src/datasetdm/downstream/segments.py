"""Mask2Former for semantic and panoptic segmentation: the same model, which finds segments instead of objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch.nn import functional as F

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks.semantic import SemanticTask
from datasetdm.downstream.mask2former import Mask2Former, ObjectTargets
from datasetdm.metrics import Meter, PanopticMeter, SemanticMeter, panoptic
from datasetdm.records import IGNORE, Annotations, Instances, Sample, SemanticMap


class SemanticMask2Former(Mask2Former):
    """All pixels of a label are one segment."""

    name = "mask2former-semantic"
    reads = (SemanticTask.field,)

    def target(self, sample: Sample, place: Placement) -> ObjectTargets:
        assert sample.semantic is not None
        ids = sample.semantic.ids
        labels = np.setdiff1d(ids, [IGNORE])
        return _targets(ids == labels[:, None, None], labels, ids != IGNORE, place)

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        """A pixel's label is the likeliest one over all queries; its confidence is that label's fraction of all."""
        inputs = processor(images=[s.image for s in samples], return_tensors="pt")
        out = model(pixel_values=inputs["pixel_values"].to(model.device))
        classes, masks = (
            out.class_queries_logits.float().softmax(-1)[..., :-1],
            out.masks_queries_logits.float().sigmoid(),
        )
        found = []
        for own, sample in zip(torch.einsum("bql,bqhw->blhw", classes, masks), samples, strict=True):
            full = F.interpolate(own[None], sample.size, mode="bilinear", align_corners=False)[0]
            confidence, ids = (full / full.sum(0, keepdim=True).clamp_min(1e-9)).max(0)
            found.append(Annotations(SemanticMap(ids.cpu().numpy().astype(np.uint16), confidence.cpu().numpy())))
        return found

    def meters(self) -> dict[str, Meter]:
        return {SemanticTask.name: SemanticMeter()}


class PanopticMask2Former(Mask2Former):
    """Every object is a segment, and all pixels of a label of surroundings (`Labels.stuff`)."""

    name = "mask2former-panoptic"
    reads = PanopticMeter.reads

    def target(self, sample: Sample, place: Placement) -> ObjectTargets:
        ids, labels = panoptic(sample)
        return _targets(ids == np.arange(1, len(labels) + 1)[:, None, None], np.array(labels), ids > 0, place)

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        """The processor's own segments; pixels outside all segments are ignored."""
        inputs = processor(images=[s.image for s in samples], return_tensors="pt")
        out = model(pixel_values=inputs["pixel_values"].to(model.device))
        stuff = {self.labels.index[name] for name in self.labels.stuff}
        sizes = [s.size for s in samples]
        found = processor.post_process_panoptic_segmentation(out, label_ids_to_fuse=stuff, target_sizes=sizes)
        return [_annotations(f["segmentation"].cpu().numpy(), f["segments_info"], stuff) for f in found]

    def meters(self) -> dict[str, Meter]:
        return {"panoptic": PanopticMeter()}


def _targets(
    masks: Bool[np.ndarray, "n h w"], labels: np.ndarray, known: Bool[np.ndarray, "h w"], place: Placement
) -> ObjectTargets:
    """Segments on the canvas of `place`."""
    maps = [place.map(torch.from_numpy(x.astype(np.uint8)), 0.0) for x in (masks, known)]
    return ObjectTargets(maps[0], torch.from_numpy(labels.astype(np.int64)), maps[1])


def _annotations(segmentation: np.ndarray, segments: Sequence[dict[str, Any]], stuff: set[int]) -> Annotations:
    """The segments of one image as a semantic map and, of things, objects."""
    ids = np.full(segmentation.shape, IGNORE, np.uint16)
    segments = [s for s in segments if (segmentation == s["id"]).any()]
    for segment in segments:
        ids[segmentation == segment["id"]] = segment["label_id"]
    things = [s for s in segments if s["label_id"] not in stuff]
    masks = np.stack([segmentation == s["id"] for s in things]) if things else np.zeros((0, *ids.shape), bool)
    labels = np.array([s["label_id"] for s in things], np.int64)
    objects = Instances.from_masks(masks, labels, np.array([s["score"] for s in things], np.float32))
    return Annotations(SemanticMap(ids), objects)
