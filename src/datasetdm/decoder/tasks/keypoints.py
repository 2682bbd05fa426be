"""Keypoints: on every object, where each point of its label's skeleton is, and whether it is seen.

Objects come from the instance task. Each is cropped out of a dense embedding of the picture, and every point of its
skeleton gets a distribution over the crop (see `decoder.points`). The place that is reported is the one with the highest
expected object keypoint similarity (OKS), and that expectation is its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.blocks.points import PointReader, cells, crop
from datasetdm.decoder.tasks import Head, Outputs
from datasetdm.decoder.tasks.instance import SMALLEST, Instance
from datasetdm.errors import DataError
from datasetdm.metrics import KeypointMeter, oks_sigmas
from datasetdm.records import Annotations, Keypoints, Labels, Sample
from datasetdm.records.point_names import mirror

MARGIN, JITTER = 0.12, 0.06
"""What is added to every side of an object's box, and how much sides move while fitting, as shares of the box."""

ABSENT = 0.1
"""A point with a lower score is called absent."""

LAYERS = 2
"""Target maps of points: neighbours in the list of names lie in different ones, so that few cover each other."""

_OBJECTS, _JOINTS, _MIRRORED = 4096, 1024, 2.0**23
"""A mark's number, which a float holds exactly: 1 + 2 * (object * _JOINTS + joint) + (1 if hidden), and in a mirrored
view plus _MIRRORED."""


def joints(labels: Labels) -> tuple[str, ...]:
    """All points of a vocabulary, each with its label's name: `cat l_ear`. Where a point is depends on what has it, and
    words in common let labels learn from each other."""
    names = tuple(f"{name} {point}" for name, bones in labels.skeletons.items() for point in bones.points)
    if len(names) > _JOINTS:
        raise DataError(f"the skeletons have {len(names)} different points", expected=f"at most {_JOINTS}")
    return names


class KeypointHead(Head):
    """Output: `embedding`. Buffer: softmax temperature."""

    temperature: Tensor

    def __init__(self, widths: Mapping[int, int], channels: int = 32):
        super().__init__()
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, channels, 1) for s, w in widths.items()})
        self.reader = PointReader(channels)
        self.register_buffer("temperature", torch.ones(()))
        self.names: tuple[str, ...] = ()

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        return {"embedding": merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float()}

    def calibrate(self, samples: Sequence[Sample]) -> None:
        """The names that the target maps number."""
        self.names = joints(samples[0].labels)

    @torch.no_grad()
    def tune(self, outputs: Sequence[Outputs], targets: Sequence[Outputs]) -> None:
        """The temperature that makes the held-out places most likely."""
        read = [found for o, t in zip(outputs, targets, strict=True) if (found := _read_marked(self, o, t)) is not None]
        if not read:
            return
        logits, truth = (torch.cat([r[i] for r in read]) for i in range(2))
        steps = torch.linspace(0.5, 4, 36).tolist()
        nll = [float(-(truth * (logits / s).log_softmax(1)).sum()) for s in steps]
        self.temperature.fill_(steps[int(np.argmin(nll))])


class KeypointTask:
    """See `Task`."""

    name = field = "keypoints"

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> Head:
        return KeypointHead(widths)

    def target(self, sample: Sample) -> dict[str, Any] | None:
        """The instance task's map of objects, and a small disc with a number of its own at every labelled point."""
        record, objects = sample.keypoints, sample.instances
        names = joints(sample.labels)
        if record is None or objects is None or not names:
            return None
        number = {n: i for i, n in enumerate(names)}
        maps = {k: np.zeros(sample.size, np.float32) for k in self.blank() if k != "object"}
        nearest = {k: np.full(sample.size, np.inf) for k in maps}
        pixels, radius = np.mgrid[: sample.size[0], : sample.size[1]] + 0.5, max(1.0, 1.5 * max(sample.size) / 128)
        for i, j in np.argwhere(record.visibility[:_OBJECTS] > 0).tolist():
            joint = number.get(f"{sample.labels.names[objects.label_ids[i]]} {record.names[i][j]}")
            if joint is None:  # its label has no skeleton
                continue
            x, y = record.xy[i, j].tolist()
            key = f"points{joint % LAYERS}"
            near = tuple(slice(max(0, int(v - radius)), int(v + radius) + 1) for v in (y, x))
            rows, columns = pixels[:, *near]
            far = np.hypot(columns - x, rows - y)
            closer = (far <= radius) & (far < nearest[key][near])
            nearest[key][near][closer] = far[closer]
            maps[key][near][closer] = 1 + 2 * (i * _JOINTS + joint) + (record.visibility[i, j] == 1)
        return {**maps, "object": (Instance().target(sample) or {})["object"]}

    def blank(self) -> dict[str, float]:
        return {"object": -1.0, **{f"points{k}": 0.0 for k in range(LAYERS)}}

    def zoomed(self, key: str, values: Tensor, zoom: float) -> Tensor:
        """In a mirrored picture left and right change places; the marks remember it."""
        return torch.where(values > 0, values + _MIRRORED, values) if zoom < 0 and key != "object" else values

    def loss(self, head: Head, outputs: Outputs, targets: Outputs) -> Tensor:
        """Divergence from a Gaussian of one cell around the true place, and cross-entropy of whether it is seen."""
        assert isinstance(head, KeypointHead)
        read = _read_marked(head, outputs, targets)
        if read is None:
            return outputs["embedding"].sum() * 0
        logits, truth, seen, true_seen = read
        place = F.kl_div(logits.log_softmax(1), truth, reduction="batchmean")
        return 0.5 * place + 0.2 * F.binary_cross_entropy_with_logits(seen, true_seen)

    @torch.no_grad()
    def record(self, head: Head, outputs: Outputs, labels: Labels, before: Annotations) -> Keypoints | None:
        """Objects without a skeleton have no points; where objects are not known, nor are points."""
        assert isinstance(head, KeypointHead)
        objects = before.instances
        if objects is None:
            return None
        areas = objects.masks.areas
        bones = [labels.skeleton_of(i) for i in objects.label_ids.tolist()]
        own = tuple(b.points if b else () for b in bones)
        values = np.zeros((len(own), max((len(p) for p in own), default=0), 4), np.float32)
        for label in np.unique([k for k, points in zip(objects.label_ids, own, strict=True) if points]):
            alike = np.flatnonzero(objects.label_ids == label)
            points = own[alike[0]]
            x, y, w, h = torch.tensor(objects.boxes[alike], dtype=torch.float32, device=head.temperature.device).T
            boxes = _widened(torch.stack([x, y, x + w, y + h], 1))
            names = [f"{labels.names[label]} {p}" for p in points]
            where, seen = head.reader(crop(outputs["embedding"].float(), boxes), names)
            for i, place, visible, at in zip(alike, where, seen, cells(boxes), strict=True):
                p = (place.flatten(1) / head.temperature).softmax(1)
                found = likeliest(p, visible.flatten(1), at.flatten(0, 1), float(areas[i]), points)
                values[i, : len(points)] = found.cpu().numpy()
        limit = np.array(objects.size[::-1], np.float32)
        visibility = np.where(values[..., 2] < ABSENT, 0, np.where(values[..., 3] > 0, 2, 1))
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
    head: KeypointHead, outputs: Outputs, targets: Outputs
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Of every marked point on its object's crop: logits f[p m], true distribution f[p m], seen (logit f[p], truth f[p])."""
    crops, boxes, owners, chosen, places, hidden = [], [], [], [], [], []
    for picture, ids, marks in zip(outputs["embedding"].float(), targets["object"], _marks(head, targets), strict=True):
        for thing in marks[0].unique().tolist():
            y, x = (ids == thing + 1).nonzero(as_tuple=True)
            if len(y) < SMALLEST:
                continue
            mine = marks[0] == thing
            owners += [len(boxes)] * int(mine.sum())
            box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
            if head.training:
                box = box + (torch.rand(4).to(box) * 2 - 1) * JITTER * (box[2:] - box[:2]).repeat(2)
            boxes.append(_widened(box[None])[0])
            crops.append(crop(picture, boxes[-1][None]))
            chosen.append(marks[1][mine])
            hidden.append(marks[2][mine])
            places.append(marks[3][mine])
    if not crops:
        return None
    own, joint, xy = torch.tensor(owners, device=crops[0].device), torch.cat(chosen), torch.cat(places)
    frame = torch.stack(boxes)
    where, seen = head.reader(torch.cat(crops), head.names)
    cell = (frame[:, 2:] - frame[:, :2])[own] / where.shape[-1]
    far = ((cells(frame)[own] - xy[:, None, None]) / cell[:, None, None]).square().sum(-1).flatten(1)
    inside = far.amin(1) < 1
    if not inside.any():
        return None
    truth = (-far[inside] / 2).softmax(1)
    own, joint = own[inside], joint[inside]
    is_seen = (seen[own, joint].flatten(1) * truth).sum(1)
    return where[own, joint].flatten(1), truth, is_seen, 1 - torch.cat(hidden)[inside].float()


def _marks(head: KeypointHead, targets: Outputs) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Per picture: object, joint, hidden (i64[p] each) and place (x, y) f[p 2] of every mark, its disc's centre."""
    maps = torch.stack([targets[f"points{k}"] for k in range(LAYERS)], 1)
    other = torch.tensor(mirror(head.names) or [0], device=maps.device)
    found = []
    for picture in maps:
        _, y, x = picture.nonzero(as_tuple=True)
        numbers, which = picture[picture > 0].long().unique(return_inverse=True)
        at = torch.stack([x, y], 1).float() + 0.5
        sums = at.new_zeros(len(numbers), 2).index_add_(0, which, at)
        xy = sums / which.bincount(minlength=len(numbers))[:, None].clamp_min(1)
        flipped = numbers > int(_MIRRORED)
        code = numbers - 1 - flipped * int(_MIRRORED)
        joint = code // 2 % _JOINTS
        found.append((code // 2 // _JOINTS, torch.where(flipped, other[joint], joint), code % 2, xy))
    return found
