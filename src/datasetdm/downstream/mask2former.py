"""Mask2Former on Swin (Cheng et al. 2022, arXiv 2112.01527): objects with their masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks import Tensors
from datasetdm.decoder.tasks.instance import InstanceTask
from datasetdm.downstream import Batch, Student, Variant
from datasetdm.downstream.matching import matched_loss
from datasetdm.metrics import InstanceMeter, Meter
from datasetdm.records import Annotations, Instances, Sample
from datasetdm.training.augment import augment_batch

NO_OBJECT = -1
"""The label of the rows that fill a batch up."""
MIN_SCORE = 0.05
"""Objects of a lower score are left out."""
MAX_OBJECTS = 100
"""COCO's figures look at no more objects per image."""
STAGES = ("stage1", "stage2", "stage3", "stage4")


@dataclass(frozen=True)
class ObjectTargets(Tensors):
    """Masks of objects, their labels, and the pixels where all objects are known (0 in crowds)."""

    masks: UInt8[Tensor, "*b n h w"]
    labels: Int64[Tensor, "*b n"]
    known: UInt8[Tensor, "*b h w"]


def _swin(width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, drop_path: float = 0.3) -> dict:
    return {
        "model_type": "swin", "embed_dim": width, "depths": depths, "num_heads": heads, "window_size": window,
        "drop_path_rate": drop_path, "out_features": list(STAGES),
    }  # fmt: skip


class Mask2Former(Student[ObjectTargets]):
    """See the module."""

    name = model_type = "mask2former"
    reads = (InstanceTask.field,)
    encoder = "model.pixel_level_module.encoder"
    encoder_type = "swin"
    outputs = ("class_queries_logits", "masks_queries_logits")
    smallest_onnx = 64  # at 32 outputs differ: the coarsest map, a 32nd, is one pixel there
    variants: ClassVar[Mapping[str, Variant]] = {
        "tiny": Variant(
            128,
            {
                "backbone_config": _swin(24, (1, 1, 2, 1), (1, 2, 4, 8), 4, 0.0),
                "feature_size": 64,
                "mask_feature_size": 64,
                "hidden_dim": 64,
                "encoder_feedforward_dim": 128,
                "encoder_layers": 2,
                "decoder_layers": 4,
                "num_attention_heads": 4,
                "dim_feedforward": 128,
                "num_queries": 30,
            },
        ),
        "swin-t": Variant(512, {"backbone_config": _swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7)}),
        "swin-s": Variant(512, {"backbone_config": _swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 7)}),
        "swin-b": Variant(512, {"backbone_config": _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12)}),
        "swin-l": Variant(512, {"backbone_config": _swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12), "num_queries": 200}),
    }

    def classes(self) -> tuple[Any, Any]:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

        return Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    def around(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        return {"backbone_config": {**encoder, "out_features": list(STAGES), "out_indices": None}}

    def processor(self, side: int) -> Any:
        from transformers import Mask2FormerImageProcessorPil

        return Mask2FormerImageProcessorPil(size={"height": side, "width": side}, size_divisor=1)

    def target(self, sample: Sample, place: Placement) -> ObjectTargets:
        objects = sample.instances
        assert objects is not None
        whole = objects.take(~objects.crowd)
        masks = torch.from_numpy(whole.masks.dense().astype(np.uint8))
        known = torch.from_numpy((~objects.masks[objects.crowd].union()).astype(np.uint8))
        return ObjectTargets(place.map(masks, 0.0), torch.from_numpy(whole.label_ids.copy()), place.map(known, 0.0))

    def collate(self, targets: Sequence[ObjectTargets]) -> ObjectTargets:
        """Rows without an object fill up to the largest number of objects, at least one."""
        most = max(1, *(len(t.labels) for t in targets))
        filled = [
            ObjectTargets(
                F.pad(t.masks, (0, 0, 0, 0, 0, most - len(t.labels))),
                F.pad(t.labels, (0, most - len(t.labels)), value=NO_OBJECT),
                t.known,
            )
            for t in targets
        ]
        return ObjectTargets.stack(filled)

    def augment(self, batch: Batch[ObjectTargets], seed: int) -> Batch[ObjectTargets]:
        images, (masks, known), _ = augment_batch(batch.images, [batch.targets.masks, batch.targets.known], seed)
        return replace(batch, images=images, targets=replace(batch.targets, masks=masks, known=known))

    def loss(self, model: Any, images: Float[Tensor, "b 3 H W"], batch: Batch[ObjectTargets]) -> Float[Tensor, ""]:
        """Every object is matched to one query, after every layer, and the losses of the pairs are summed."""
        out = model(pixel_values=images, output_auxiliary_logits=True)
        steps = [*out.auxiliary_logits, out]
        masks = torch.stack([s["masks_queries_logits"] for s in steps]).float()  # [n b q h w]
        classes = torch.stack([s["class_queries_logits"] for s in steps]).float()
        size = (masks.shape[-2], masks.shape[-1])
        truth = F.adaptive_avg_pool2d(batch.targets.masks.float(), size)
        known = F.adaptive_avg_pool2d(batch.targets.known.float()[:, None], size)[:, 0] > 0.5
        there = (batch.targets.labels != NO_OBJECT) & (truth.flatten(2).sum(2) > 0)  # a crop may leave an object out
        rows = list(there)
        return matched_loss(
            masks,
            classes,
            [t[r] for t, r in zip(truth, rows, strict=True)],
            [t[r] for t, r in zip(batch.targets.labels, rows, strict=True)],
            known,
        )

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        inputs = processor(images=[s.image for s in samples], return_tensors="pt")
        out = model(pixel_values=inputs["pixel_values"].to(model.device))
        pairs = zip(out.class_queries_logits.float(), out.masks_queries_logits.float(), samples, strict=True)
        return [Annotations(instances=_objects(classes, masks, s.size)) for classes, masks, s in pairs]

    def meters(self) -> dict[str, Meter]:
        return {InstanceTask.name: InstanceMeter()}


def _objects(classes: Float[Tensor, "q l"], masks: Float[Tensor, "q h w"], size: tuple[int, int]) -> Instances:
    """The surest pairs of a query and a label. A score is the label's probability times the mask's mean probability."""
    scores = classes.softmax(-1)[:, :-1]
    best, chosen = scores.flatten().topk(min(MAX_OBJECTS, scores.numel()))
    queries, labels = chosen // scores.shape[1], chosen % scores.shape[1]
    full = F.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0].sigmoid()
    binary = full > 0.5
    area = binary.flatten(1).sum(1)
    sure = (full * binary).flatten(1).sum(1) / area.clamp_min(1)
    best = best * sure[queries]
    kept = (area[queries] > 0) & (best >= MIN_SCORE)
    return Instances.from_masks(
        binary[queries[kept]].cpu().numpy(), labels[kept].cpu().numpy(), best[kept].cpu().numpy()
    )
