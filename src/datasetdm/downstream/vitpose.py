"""ViTPose (Xu et al. 2022, arXiv 2204.12484): the points of known objects, each cropped out of its image (top-down).

A channel of the heatmaps belongs to a name of a point; labels whose skeletons share a name share the channel, as species do in
AP-10K (Yu et al. 2021). Places are pixels as in COCO and in `transformers`: the centre of the first pixel is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks import Tensors
from datasetdm.decoder.tasks.keypoints import KeypointTask
from datasetdm.downstream import Batch, LossOptions, Student, Variant
from datasetdm.downstream.pool import in_labels
from datasetdm.errors import ConfigError
from datasetdm.metrics import KeypointMeter, Meter
from datasetdm.records import Annotations, Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.records.point_names import mirror, name_words
from datasetdm.training.augment import turn_batch

WIDTH, HEIGHT = 3, 4
"""Aspect of a crop, as in the paper."""
SIGMA, MIN_SIGMA = 2 / 64, 1.0
"""Of a point's Gaussian: as a fraction of the heatmap's height, and in its pixels at least."""
HEAD_DEVIATION = 0.001
"""Of the head's first weights, as in MMPose: heatmaps begin empty. With the 0.02 of transformers the first 300 steps of a small
model only remove noise (docs/LOG.md, 2026-11-28)."""
SEEN = 0.2
"""A point of a lower score is called absent; MMPose's threshold."""


@dataclass(frozen=True)
class PointTargets(Tensors):
    """Places (x, y) in the crop, in pixels, and whether they are labelled."""

    xy: Float[Tensor, "*b k 2"]
    known: Bool[Tensor, "*b k"]


def _vit(hidden: int, layers: int, heads: int, patch: int = 16, mlp_ratio: int = 4) -> Mapping[str, Any]:
    return {
        "initializer_range": HEAD_DEVIATION,
        "backbone_config": {
            "model_type": "vitpose_backbone", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "patch_size": [patch, patch], "mlp_ratio": mlp_ratio, "out_indices": [layers],
        }
    }  # fmt: skip


class Vitpose(Student[PointTargets]):
    """See the module."""

    name = model_type = "vitpose"
    reads = (*KeypointTask.needs, KeypointTask.field)
    encoder = "backbone"
    outputs = ("heatmaps",)
    variants: ClassVar[Mapping[str, Variant]] = {
        "tiny": Variant(64, {**_vit(96, 4, 4, patch=8, mlp_ratio=2), "scale_factor": 2}),
        "s": Variant(256, _vit(384, 12, 12)),
        "b": Variant(256, _vit(768, 12, 12)),
        "l": Variant(256, _vit(1024, 24, 16)),
        "h": Variant(256, _vit(1280, 32, 16)),
    }

    def __init__(self, labels: Labels, options: LossOptions | None = None):
        super().__init__(labels, options)
        self.points = tuple(dict.fromkeys(p for s in labels.skeletons.values() for p in s.points))
        self.channel = {name: i for i, name in enumerate(self.points)}
        self.mirrored = torch.tensor(mirror(self.points), dtype=torch.long)

    @classmethod
    def labels_of(cls, config: Any) -> Labels:
        """Published models know persons; their points get COCO's names (`L_Eye` is left_eye)."""
        points = tuple("_".join(name_words(config.id2label[i])) for i in range(len(config.id2label)))
        return Labels(("person",), skeletons={"person": Skeleton(points)})

    def classes(self) -> tuple[Any, Any]:
        from transformers import VitPoseConfig, VitPoseForPoseEstimation

        return VitPoseConfig, VitPoseForPoseEstimation

    def settings(self) -> dict[str, Any]:
        return {"id2label": dict(enumerate(self.points)), "label2id": self.channel}

    def frame(self, side: int) -> tuple[int, int]:
        return side, side * WIDTH // HEIGHT

    def sized(self, settings: Mapping[str, Any], side: int) -> dict[str, Any]:
        backbone, frame = dict(settings["backbone_config"]), list(self.frame(side))
        own, patch = list(backbone.get("image_size", frame)), backbone["patch_size"]
        if own != frame:
            raise ConfigError(
                f"the encoder does not see crops of {frame[0]}x{frame[1]} pixels", expected=f"--size {own[0]}"
            )
        if any(pixels % p for pixels, p in zip(frame, patch, strict=True)):
            raise ConfigError(
                f"crops of {frame[0]}x{frame[1]} pixels have no whole number of patches",
                expected=f"a --size that is a multiple of {patch[0] * HEIGHT}",
            )
        return {**settings, "backbone_config": {**backbone, "image_size": frame}}

    def processor(self, side: int) -> Any:
        from transformers import VitPoseImageProcessorPil

        height, width = self.frame(side)
        return VitPoseImageProcessorPil(size={"height": height, "width": width})

    def examples(self, sample: Sample) -> list[Sample]:
        """The objects with a labelled point, each with as much of the image as a crop shows."""
        objects, record = sample.instances, sample.keypoints
        if objects is None or record is None:
            return []
        found = []
        for i in np.flatnonzero(~objects.crowd & (record.visibility > 0).any(1)).tolist():
            if self.labels.skeleton_of(int(objects.label_ids[i])) is None:
                continue
            centre, size = _place(objects.boxes[i])
            limit = np.array(sample.size[::-1])
            low = np.floor(centre - size / 2 - 2).clip(0, limit - 1).astype(int)
            high = np.ceil(centre + size / 2 + 2).clip(low + 1, limit).astype(int)
            region = slice(low[1], high[1]), slice(low[0], high[0])
            box = objects.boxes[i] - [*low, 0, 0]
            area = np.ones((1, *(high - low)[::-1]), bool)  # what a crop shows follows from the box alone
            points = record.take([i])
            inside = ((points.xy >= low) & (points.xy <= high)).all(-1)
            found.append(
                Sample(
                    f"{sample.key}#{i}",
                    sample.image[region],
                    sample.labels,
                    instances=Instances.from_masks(area, objects.label_ids[i : i + 1], boxes=box[None]),
                    keypoints=replace(
                        points, xy=points.xy - low.astype(np.float32), visibility=points.visibility * inside
                    ),
                )
            )
        return found

    def view(
        self, sample: Sample, side: int, rng: np.random.Generator
    ) -> tuple[Float[Tensor, "1 3 H W"], PointTargets]:
        """The crop of the first object, and its points."""
        objects = sample.instances
        assert objects is not None
        frame = self.frame(side)
        image = _crops(self.processor(side), sample.image, objects.boxes[:1].tolist(), do_normalize=False)
        return image, self.target(sample, Placement(sample.size, frame, frame))

    def target(self, sample: Sample, place: Placement) -> PointTargets:
        """The points of the first object in its crop."""
        objects, record = sample.instances, sample.keypoints
        assert objects is not None and record is not None
        height, width = place.canvas
        centre, size = _place(objects.boxes[0])
        xy, known = np.zeros((len(self.points), 2), np.float32), np.zeros(len(self.points), bool)
        for name, at, visible in zip(record.names[0], record.xy[0], record.visibility[0], strict=False):
            if (channel := self.channel.get(name)) is not None:
                xy[channel] = (at - centre + size / 2) * (width - 1, height - 1) / size
                known[channel] = visible > 0
        return PointTargets(torch.from_numpy(xy), torch.from_numpy(known))

    def augment(self, batch: Batch[PointTargets], seed: int) -> Batch[PointTargets]:
        """In a mirrored image left and right change places; points that leave the crop teach nothing."""
        images, matrices = turn_batch(batch.images, seed)
        xy, known, matrices = batch.targets.xy, batch.targets.known, matrices.to(batch.targets.xy)
        xy = xy @ matrices[:, :2, :2].mT + matrices[:, None, :2, 2]
        swapped = (torch.linalg.det(matrices) < 0)[:, None]
        known = torch.where(swapped, known[:, self.mirrored], known)
        xy = torch.where(swapped[..., None], xy[:, self.mirrored], xy)
        limit = xy.new_tensor([images.shape[-1] - 1, images.shape[-2] - 1])
        return replace(batch, images=images, targets=PointTargets(xy, known & ((xy >= 0) & (xy <= limit)).all(-1)))

    def loss(self, model: Any, images: Float[Tensor, "b 3 H W"], batch: Batch[PointTargets]) -> Float[Tensor, ""]:
        """The mean squared error of the heatmaps of labelled points, in units of that of empty heatmaps."""
        heatmaps, known = model(pixel_values=images).heatmaps.float(), batch.targets.known
        truth = gaussians(
            batch.targets.xy, (images.shape[-2], images.shape[-1]), (heatmaps.shape[-2], heatmaps.shape[-1])
        )
        weight = known[..., None, None].float()
        return ((heatmaps - truth).square() * weight).sum() / (truth.square() * weight).sum().clamp_min(1)

    @torch.no_grad()
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        """The points of the samples' own objects; nothing where objects are not known."""
        return [self._annotated(model, processor, s) for s in samples]

    def _annotated(self, model: Any, processor: Any, sample: Sample) -> Annotations:
        objects = in_labels(replace(sample, semantic=None, depth=None, keypoints=None), self.labels).instances
        if objects is None:
            return Annotations()
        skeletons = [self.labels.skeleton_of(i) for i in objects.label_ids.tolist()]
        names = tuple(s.points if s else () for s in skeletons)
        values = np.zeros((len(names), max(map(len, names), default=0), 3), np.float32)
        if posed := [i for i, own in enumerate(names) if own]:
            boxes = objects.boxes[posed].tolist()
            inputs = _crops(processor, sample.image, boxes).to(model.device)
            experts = getattr(model.config.backbone_config, "num_experts", 1)
            chosen = {"dataset_index": inputs.new_zeros(len(inputs), dtype=torch.long)} if experts > 1 else {}
            heatmaps = model(pixel_values=inputs, **chosen).heatmaps.float().cpu()  # ViTPose+: the expert of COCO
            for i, box, maps in zip(posed, boxes, heatmaps, strict=True):
                own = maps[[self.channel[name] for name in names[i]]]
                values[i, : len(own)] = _read(processor, own, box)
        limit = np.array(sample.size[::-1], np.float32)
        visibility = np.where(values[..., 2] < SEEN, 0, 2).astype(np.uint8)
        points = Keypoints(values[..., :2].clip(0, limit), visibility, names, values[..., 2])
        return Annotations(instances=objects, keypoints=points)

    def meters(self) -> dict[str, Meter]:
        return {KeypointTask.name: KeypointMeter()}


def _place(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size (x, y), in pixels of the image, of what a crop shows of an object: its padded box."""
    from transformers.models.vitpose.image_processing_pil_vitpose import box_to_center_and_scale

    return box_to_center_and_scale(box, image_width=WIDTH, image_height=HEIGHT, normalize_factor=1.0)


def _crops(processor: Any, image: np.ndarray, boxes: Sequence[Any], **others: Any) -> Float[Tensor, "n 3 H W"]:
    """What the model sees of an image's objects. boxes: x, y, width, height."""
    found = processor(
        images=[image], boxes=[boxes], input_data_format="channels_last", return_tensors="pt", **others
    )  # fmt: skip
    return found["pixel_values"].float()


def _read(processor: Any, heatmaps: Float[Tensor, "k h w"], box: Sequence[float]) -> Float[np.ndarray, "k 3"]:
    """Places (x, y) in the image and scores, 0 to 1, as the processor reads them (DARK, Zhang et al. 2020): one object at a time,
    because it fails for several objects of one point."""
    outputs = SimpleNamespace(heatmaps=heatmaps[None])
    ((found,),) = processor.post_process_pose_estimation(outputs, boxes=[[box]])
    values = torch.cat([found["keypoints"], found["scores"].reshape(-1, 1).clamp(0, 1)], 1)
    return values.nan_to_num().numpy()


def gaussians(xy: Float[Tensor, "b k 2"], frame: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "b k h w"]:
    """The heatmaps of points: 1 at their places, without rounding (Huang et al. 2020, UDP).

    Args:
        xy: places in a crop of `frame` (height, width), in pixels.
        size: (height, width) of the heatmaps.
    """
    sigma = max(MIN_SIGMA, SIGMA * size[0])
    columns, rows = (
        torch.exp(
            -(
                torch.arange(size[i], device=xy.device) - xy[..., 1 - i, None] * ((size[i] - 1) / (frame[i] - 1))
            ).square()
            / (2 * sigma**2)
        )
        for i in (1, 0)
    )
    return rows[..., :, None] * columns[..., None, :]
