"""Keypoints: on every object, where each point of its label's skeleton is, and whether it is seen.

Objects come from the instance task. Each is cropped out of a dense embedding of the image, and every point of its
skeleton gets a distribution over the crop (see `decoder.blocks.points`). The reported place is the one with the highest
expected object keypoint similarity (OKS), and that expectation is its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.blocks.points import PointReader, cells, crop
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import TEMPERATURES, Head, Previous, Tensors
from datasetdm.decoder.tasks.instance import MIN_PIXELS, InstanceTask
from datasetdm.metrics.keypoints import KeypointMeter, oks_sigmas
from datasetdm.records import AnnotationName, Annotations, Keypoints, Labels, Sample
from datasetdm.records.point_names import mirror

MARGIN, JITTER = 0.12, 0.06
"""What is added to every side of an object's box, and how much sides move while fitting, as fractions of the box."""

MIN_SCORE = 0.1
"""A point with a lower score is called absent."""

LAYERS = 2
"""Maps of points in a target: neighbours in the list of names lie in different ones, so that few cover each other."""

DISC_RADIUS = 1.5 / 128
"""Of a point's disc in a target, as a fraction of the image's longer side; at least one pixel. It survives resampling to the
finest stride."""

PLACE_WEIGHT, VISIBILITY_WEIGHT = 0.5, 0.2
"""Of the loss' two parts, so that keypoints do not outweigh the other tasks in the shared pixel decoder."""


@dataclass(frozen=True)
class KeypointOutputs(Tensors):
    """A dense embedding, out of which objects are cropped."""

    embedding: Float[Tensor, "*b c h w"]


@dataclass(frozen=True)
class KeypointTargets(Tensors):
    """Labelled points as small discs, whose centres follow the image through any view.

    Args:
        objects: the instance task's map of objects.
        owner: number of the object that a disc's point belongs to, 0 outside discs.
        point: 1 + index of the point in `joint_names`, 0 outside discs.
        mirrored: the same for the point that it becomes in a mirrored image.
        hidden: 1 if the point is not seen.
    """

    objects: Int[Tensor, "*b h w"]
    owner: Int[Tensor, "*b k h w"]
    point: Int[Tensor, "*b k h w"]
    mirrored: Int[Tensor, "*b k h w"]
    hidden: Int[Tensor, "*b k h w"]


def joint_names(labels: Labels) -> tuple[str, ...]:
    """All points of a vocabulary, each with its label's name: `cat l_ear`. Where a point is depends on the kind of object, and
    words in common let labels learn from each other."""
    return tuple(f"{name} {point}" for name, skeleton in labels.skeletons.items() for point in skeleton.points)


class KeypointHead(Head[KeypointOutputs, KeypointTargets]):
    """Buffer: softmax temperature."""

    temperature: Tensor

    def __init__(self, widths: Mapping[int, int], channels: int = 32):
        super().__init__()
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, channels, 1) for s, w in widths.items()})
        self.reader = PointReader(channels)
        self.register_buffer("temperature", torch.ones(()))
        self.names: tuple[str, ...] = ()

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> KeypointOutputs:
        return KeypointOutputs(merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float())

    def fit_statistics(self, samples: Sequence[Sample]) -> None:
        """The names that the targets number."""
        self.names = joint_names(samples[0].labels)

    @torch.no_grad()
    def calibrate(self, outputs: Sequence[KeypointOutputs], targets: Sequence[KeypointTargets]) -> None:
        """The temperature that makes the held-out places most likely."""
        read = [found for o, t in zip(outputs, targets, strict=True) if (found := _read_marked(self, o, t)) is not None]
        if not read:
            return
        logits, truth = (torch.cat([r[i] for r in read]) for i in range(2))
        nll = [float(-(truth * (logits / s).log_softmax(1)).sum()) for s in TEMPERATURES]
        self.temperature.fill_(TEMPERATURES[int(np.argmin(nll))])


class KeypointTask:
    """See `Task`."""

    name = "keypoints"
    field: AnnotationName = "keypoints"
    needs: tuple[AnnotationName, ...] = ("instances",)

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> KeypointHead:
        return KeypointHead(widths)

    def target(self, sample: Sample) -> KeypointTargets | None:
        """The instance task's map of objects, and a disc at every labelled point."""
        record, objects = sample.keypoints, sample.instances
        names = joint_names(sample.labels)
        if record is None or objects is None or not names:
            return None
        number, other = {n: i for i, n in enumerate(names)}, mirror(names)
        maps = np.zeros((4, LAYERS, *sample.size), np.int32)
        nearest = np.full((LAYERS, *sample.size), np.inf)
        pixels, radius = np.mgrid[: sample.size[0], : sample.size[1]] + 0.5, max(1.0, DISC_RADIUS * max(sample.size))
        labelled = (record.visibility > 0) & ~objects.crowd[:, None]
        for i, j in np.argwhere(labelled).tolist():
            joint = number.get(f"{sample.labels.names[objects.label_ids[i]]} {record.names[i][j]}")
            if joint is None:  # its label has no skeleton
                continue
            x, y = record.xy[i, j].tolist()
            near = joint % LAYERS, *(slice(max(0, int(v - radius)), int(v + radius) + 1) for v in (y, x))
            rows, columns = pixels[:, *near[1:]]
            distance = np.hypot(columns - x, rows - y)
            closer = (distance <= radius) & (distance < nearest[near])
            nearest[near][closer] = distance[closer]
            values = i + 1, joint + 1, other[joint] + 1, record.visibility[i, j] == 1
            maps[:, *near][:, closer] = np.array(values, np.int32)[:, None]
        instances = InstanceTask().target(sample)
        assert instances is not None
        return KeypointTargets(instances.objects, *torch.from_numpy(maps))

    def fill_values(self) -> KeypointTargets:
        instances, nothing = InstanceTask().fill_values(), torch.zeros(LAYERS, 1, 1, dtype=torch.int32)
        return KeypointTargets(instances.objects, nothing, nothing, nothing, nothing)

    def rescale_target(self, target: KeypointTargets, zoom: float) -> KeypointTargets:
        """In a mirrored image left and right change places."""
        return replace(target, point=target.mirrored, mirrored=target.point) if zoom < 0 else target

    def loss(self, head: KeypointHead, outputs: KeypointOutputs, targets: KeypointTargets) -> Tensor:
        """Divergence from a Gaussian of one cell around the true place, and cross-entropy of whether it is seen."""
        read = _read_marked(head, outputs, targets)
        if read is None:
            return outputs.embedding.sum() * 0
        logits, truth, seen, true_seen = read
        place = F.kl_div(logits.log_softmax(1), truth, reduction="batchmean")
        return PLACE_WEIGHT * place + VISIBILITY_WEIGHT * F.binary_cross_entropy_with_logits(seen, true_seen)

    @torch.no_grad()
    def postprocess(
        self, head: KeypointHead, outputs: KeypointOutputs, labels: Labels, previous: Annotations
    ) -> Keypoints | None:
        """Objects without a skeleton have no points; without known objects there are no points."""
        objects = previous.instances
        if objects is None:
            return None
        areas = objects.masks.areas
        skeletons = [labels.skeleton_of(i) for i in objects.label_ids.tolist()]
        own = tuple(s.points if s else () for s in skeletons)
        values = np.zeros((len(own), max((len(p) for p in own), default=0), 4), np.float32)
        for label in np.unique([k for k, points in zip(objects.label_ids, own, strict=True) if points]):
            alike = np.flatnonzero(objects.label_ids == label)
            points = own[alike[0]]
            x, y, w, h = torch.tensor(objects.boxes[alike], dtype=torch.float32, device=head.temperature.device).T
            boxes = _widened(torch.stack([x, y, x + w, y + h], 1))
            names = [f"{labels.names[label]} {p}" for p in points]
            where, seen = head.reader(crop(outputs.embedding.float(), boxes), names)
            for i, place, visible, at in zip(alike, where, seen, cells(boxes), strict=True):
                p = (place.flatten(1) / head.temperature).softmax(1)
                found = likeliest(p, visible.flatten(1), at.flatten(0, 1), float(areas[i]), points)
                values[i, : len(points)] = found.cpu().numpy()
        limit = np.array(objects.size[::-1], np.float32)
        visibility = np.where(values[..., 2] < MIN_SCORE, 0, np.where(values[..., 3] > 0, 2, 1))
        return Keypoints(values[..., :2].clip(0, limit), visibility.astype(np.uint8), own, values[..., 2])

    def meter(self) -> KeypointMeter:
        return KeypointMeter()


def likeliest(
    p: Float[Tensor, "k m"], seen: Float[Tensor, "k m"], at: Float[Tensor, "m 2"], area: float, points: Sequence[str]
) -> Float[Tensor, "k 4"]:
    """Per point: x, y, the expected OKS of that place, which no other exceeds, and how clearly it is seen (logit).

    at: the cells' centres (x, y), row by row of a square grid. OKS is a Gaussian, so rows and columns are summed apart.
    """
    spread = 2 * torch.tensor(oks_sigmas(points), dtype=torch.float32, device=p.device)
    side = round(len(at) ** 0.5)
    lines = torch.stack([at.view(side, side, 2)[:, 0, 1], at.view(side, side, 2)[0, :, 0]])
    far = (lines[:, :, None] - lines[:, None]).square()
    rows, columns = torch.exp(-far[:, None] / (2 * max(area, 1.0) * spread.square()[:, None, None]))
    score, best = (rows @ p.unflatten(1, (side, side)) @ columns).flatten(1).max(1)
    point = torch.arange(len(best), device=p.device)
    alike = rows[point, best // side, :, None] * columns[point, best % side, None]
    weight = p * alike.flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-12)
    return torch.cat([weight @ at, score[:, None].clamp(0, 1), (weight * seen).sum(1, keepdim=True)], 1)


def _widened(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Boxes with a margin, for points lie on the rim or beyond."""
    extra = (boxes[:, 2:] - boxes[:, :2]) * MARGIN + 1
    return torch.cat([boxes[:, :2] - extra, boxes[:, 2:] + extra], 1)


def _read_marked(
    head: KeypointHead, outputs: KeypointOutputs, targets: KeypointTargets
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Of every marked point on its object's crop: logits f[p m], true distribution f[p m], seen (logit f[p], truth f[p])."""
    crops, boxes, crop_of, found = [], [], [], []
    for i, embedding in enumerate(outputs.embedding.float()):
        marks = find_marks(targets[i])
        for number in marks.owner.unique().tolist():
            y, x = (targets.objects[i] == number).nonzero(as_tuple=True)
            if len(y) < MIN_PIXELS:
                continue
            mine = marks[marks.owner == number]
            crop_of += [len(boxes)] * len(mine.owner)
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            if head.training:
                box = box + (torch.rand(4).to(box) * 2 - 1) * JITTER * (box[2:] - box[:2]).repeat(2)
            boxes.append(_widened(box[None])[0])
            crops.append(crop(embedding, boxes[-1][None]))
            found.append(mine)
    if not crops:
        return None
    own, marks = torch.tensor(crop_of, device=crops[0].device), found[0].map(lambda *x: torch.cat(x), *found[1:])
    frame = torch.stack(boxes)
    where, seen = head.reader(torch.cat(crops), head.names)
    cell = (frame[:, 2:] - frame[:, :2])[own] / where.shape[-1]
    distance = ((cells(frame)[own] - marks.xy[:, None, None]) / cell[:, None, None]).square().sum(-1).flatten(1)
    inside = distance.amin(1) < 1
    if not inside.any():
        return None
    truth = (-distance[inside] / 2).softmax(1)
    own, point = own[inside], marks.point[inside]
    is_seen = (seen[own, point].flatten(1) * truth).sum(1)
    return where[own, point].flatten(1), truth, is_seen, 1 - marks.hidden[inside].float()


@dataclass(frozen=True)
class Marks(Tensors):
    """The labelled points of one image: their object's number, index in `joint_names`, whether hidden, and place (x, y)."""

    owner: Int[Tensor, "p"]
    point: Int[Tensor, "p"]
    hidden: Int[Tensor, "p"]
    xy: Float[Tensor, "p 2"]


def find_marks(target: KeypointTargets) -> Marks:
    """The centres of a target's discs, `[k h w]`, in the order of their objects and names."""
    layer, y, x = target.point.nonzero(as_tuple=True)
    here = torch.stack([m[layer, y, x] for m in (target.owner, target.point, target.hidden)])
    (owner, point, hidden), disc = here.unique(dim=1, return_inverse=True)
    at = torch.stack([x, y], 1).float() + 0.5
    sums = at.new_zeros(len(owner), 2).index_add_(0, disc, at)
    return Marks(owner, point.long() - 1, hidden, sums / disc.bincount(minlength=len(owner))[:, None].clamp_min(1))
