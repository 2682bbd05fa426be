"""Separate objects: what belongs to one, where its centre is, which pixels point there, and what its label is.

Connected pixels are one object; where a region has several clear centres, every pixel votes for one (Cheng et al. 2020,
Panoptic-DeepLab). Every labelled pixel gives a gradient, where a set of object queries has one match per object. An object's
label is the likeliest over its pixels by the labels' text embeddings, so any vocabulary works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from scipy.ndimage import label as connected
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import Head, Previous, Tensors, platt_scaling
from datasetdm.decoder.tasks.semantic import SemanticOutputs
from datasetdm.metrics.instance import InstanceMeter
from datasetdm.records import AnnotationName, Annotations, Instances, Labels, Sample

UNKNOWN = -1
"""In targets: object 0 is a pixel of no object, 1, 2, ... are objects, UNKNOWN is a pixel that nobody labelled or that belongs
to a crowd."""

MAX_OBJECTS = 30
"""Objects per image at most, the best ones."""

MIN_PIXELS = 16
"""Pixels per object at least: smaller ones are noise at the finest stride."""

CENTRE_THRESHOLD = 0.4
"""Probability that a centre must reach to split a region."""

PEAK_SPACING = 18
"""No two centres are nearer than the image's side over this."""

FULL_AREA = 0.03
"""Fraction of the image from which on an object's size does not lower its score; smaller ones are less often right."""

MIN_LOGIT = 1e-4
"""Distance that scores keep from 0 and 1 where their logit is taken."""

THING_GAIN = 4.0
"""Factor on the logit by which a label's text embedding raises or lowers objectness; it lets the small weights learn faster."""

CENTRE_PRIOR = -3.0
"""Logit of a centre before anything is learnt: centres are rare."""

OFFSET_UNIT = 0.1
"""Offsets of about unit spread, as fractions of the canvas."""

DICE_WEIGHT, CENTRE_WEIGHT, OFFSET_WEIGHT, LABEL_WEIGHT = 0.5, 0.5, 5.0, 0.5
"""Of the loss' parts beside the cross-entropy of objectness. Offsets are fractions of the canvas, hence the 5."""


@dataclass(frozen=True)
class InstanceOutputs(Tensors):
    """Logits of belonging to an object and of being its centre; the way to the centre (y, x) as a fraction of the canvas; a
    logit per label. With a semantic task, its logits are added to `label_logits`, and what they say of a pixel to
    `objectness`: some labels are things, others surroundings."""

    objectness: Float[Tensor, "*b 1 h w"]
    centre: Float[Tensor, "*b 1 h w"]
    offset: Float[Tensor, "*b 2 h w"]
    label_logits: Float[Tensor, "*b l h w"]


@dataclass(frozen=True)
class InstanceTargets(Tensors):
    """Every pixel's object (see `UNKNOWN`) and that object's label id, `UNKNOWN` outside objects."""

    objects: Int[Tensor, "*b h w"]
    labels: Int[Tensor, "*b h w"]


class InstanceHead(Head[InstanceOutputs, InstanceTargets]):
    """Buffer: slope and shift of the scores' logit."""

    trust: Tensor

    def __init__(self, widths: Mapping[int, int], text_width: int, words: int = 32):
        super().__init__()
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, 4 + words, 1) for s, w in widths.items()})
        self.words = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, words + 1))
        self.things = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, 1))
        nn.init.zeros_(self.things[1].weight)  # ty: ignore[invalid-argument-type]
        self.register_buffer("trust", torch.tensor([1.0, 0.0]))

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> InstanceOutputs:
        out = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float()
        words = self.words(inputs.text.float()).float()
        label = torch.einsum("lc,bchw->blhw", words[:, 1:] * (words.shape[1] - 1) ** -0.5, out[:, 4:])
        label = label + words[:, :1, None]
        objectness = out[:, :1]
        if (semantic := previous.get(SemanticOutputs)) is not None:
            known = semantic.logits.detach().float()
            is_thing = THING_GAIN * self.things(inputs.text.float()).float().squeeze(1)
            thing = torch.einsum("blhw,l->bhw", known.softmax(1), is_thing)[:, None]
            label, objectness = label + known, objectness + thing
        return InstanceOutputs(objectness, out[:, 1:2] + CENTRE_PRIOR, out[:, 2:4] * OFFSET_UNIT, label)

    def calibrate(self, outputs: Sequence[InstanceOutputs], targets: Sequence[InstanceTargets]) -> None:
        """Scores become the fraction of held-out objects found with such a score that are right."""
        logits, right = [], []
        for own, truth in zip(outputs, targets, strict=True):
            for i, (ids, labels) in enumerate(zip(truth.objects, truth.labels, strict=True)):
                for mask, label, score in zip(*group_outputs(own[i]), strict=True):
                    if 2 * int((mask & (ids >= 0)).sum()) >= int(mask.sum()):  # somebody labelled there
                        logits.append(float(torch.logit(score, MIN_LOGIT)))
                        right.append(is_right(mask, int(label), ids, labels))
        trust = platt_scaling(torch.tensor(logits), torch.tensor(right, dtype=torch.float32))
        if trust is not None:
            self.trust.copy_(trust)


class InstanceTask:
    """See `Task`."""

    name = "instance"
    field: AnnotationName = "instances"
    needs = ()

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> InstanceHead:
        return InstanceHead(widths, text_width)

    def target(self, sample: Sample) -> InstanceTargets | None:
        """Small objects lie on top of large ones where masks overlap; what only a crowd covers is unknown."""
        record = sample.instances
        if record is None:
            return None
        ids, labels = np.zeros(sample.size, np.int32), np.full(sample.size, UNKNOWN, np.int32)
        ids[record.masks[np.flatnonzero(record.crowd)].union()] = UNKNOWN
        for i in np.argsort(-record.masks.areas):
            if not record.crowd[i]:
                mask = record.masks[i]
                ids[mask], labels[mask] = i + 1, record.label_ids[i]
        return InstanceTargets(torch.from_numpy(ids), torch.from_numpy(labels))

    def fill_values(self) -> InstanceTargets:
        unknown = torch.full((1, 1), UNKNOWN, dtype=torch.int32)
        return InstanceTargets(unknown, unknown)

    def rescale_target(self, target: InstanceTargets, zoom: float) -> InstanceTargets:
        return target

    def loss(self, head: InstanceHead, outputs: InstanceOutputs, targets: InstanceTargets) -> Tensor:
        """Cross-entropy and dice of objectness, focal loss of centres (Law & Deng 2018), L1 of offsets, labels."""
        ids = targets.objects.long()
        known, inside = ids >= 0, ids > 0
        logit = outputs.objectness[:, 0]
        if not known.any():
            return logit.sum() * 0
        masks = F.one_hot(ids.clamp_min(0), int(ids.max()) + 1).movedim(-1, 1)[:, 1:].float()
        heat, offset, area = centres(masks)
        p = logit.sigmoid() * known
        dice = 1 - 2 * (p * inside).sum() / (p.sum() + inside.sum()).clamp_min(1)
        loss = F.binary_cross_entropy_with_logits(logit[known], inside[known].float()) + DICE_WEIGHT * dice
        loss = loss + CENTRE_WEIGHT * _focal(outputs.centre[:, 0], heat, known)
        if not inside.any():
            return loss
        weight = (
            area.clamp_min(MIN_PIXELS) ** -0.5 * inside
        )  # a pixel of a small object weighs more than one of a large one
        weight = weight / weight.sum()
        distance = (outputs.offset - offset).abs().sum(1)
        labels = F.cross_entropy(outputs.label_logits, targets.labels.long(), ignore_index=UNKNOWN, reduction="none")
        return loss + OFFSET_WEIGHT * (distance * weight).sum() + LABEL_WEIGHT * (labels * weight).sum()

    def postprocess(
        self, head: InstanceHead, outputs: InstanceOutputs, labels: Labels, previous: Annotations
    ) -> Instances:
        masks, label_ids, scores = group_outputs(outputs)
        scores = (torch.logit(scores, MIN_LOGIT) * head.trust[0] + head.trust[1]).sigmoid()
        return Instances.from_masks(masks.cpu().numpy(), label_ids.cpu().numpy(), scores.cpu().numpy())

    def meter(self) -> InstanceMeter:
        return InstanceMeter()


def group_outputs(outputs: InstanceOutputs) -> tuple[Bool[Tensor, "n h w"], Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """`group_instances` from the outputs of one image, f[c h w] each."""
    return group_instances(
        outputs.objectness[0].float(), outputs.centre[0].float(), outputs.offset.float(), outputs.label_logits.float()
    )


def is_right(mask: Bool[Tensor, "h w"], label: int, ids: Int[Tensor, "h w"], labels: Int[Tensor, "h w"]) -> bool:
    """Whether a true object of this label has an IoU of at least 0.5 with the mask; `ids` and `labels` are target maps, and
    unknown pixels do not count."""
    mine = mask & (ids >= 0)
    here = ids[mine & (labels == label) & (ids > 0)]
    if not len(here):
        return False
    other = ids == here.mode().values
    return bool((mine & other).sum() >= 0.5 * (mine | other).sum())


def centres(
    masks: Float[Tensor, "b n h w"],
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b 2 h w"], Float[Tensor, "b h w"]]:
    """Of disjoint masks: a bump of height 1 at every centre of mass, about a sixth of its object wide; every pixel's way
    to its own centre as a fraction of the canvas (y, x); and the area of its object in pixels."""
    h, w = masks.shape[-2:]
    y = torch.arange(h, device=masks.device, dtype=torch.float32).view(h, 1)
    x = torch.arange(w, device=masks.device, dtype=torch.float32).view(1, w)
    area = masks.sum((2, 3))
    cy, cx = ((masks * v).sum((2, 3)) / area.clamp_min(1) for v in (y, x))
    wide = (area.sqrt() / 6).clamp_min(1)[..., None, None]
    far = (y - cy.round()[..., None, None]) ** 2 + (x - cx.round()[..., None, None]) ** 2
    bumps = torch.exp(-far / (2 * wide**2)) * (area > 0)[..., None, None]
    heat = bumps.amax(1) if masks.shape[1] else masks.new_zeros(len(masks), h, w)
    own = (masks.unsqueeze(2) * torch.stack([cy, cx], 2)[..., None, None]).sum(1)
    here = torch.stack([y.expand(h, w), x.expand(h, w)])
    inside = masks.sum(1, keepdim=True)
    return heat, (own - here) * inside / max(h, w), (masks * area[..., None, None]).sum(1)


def group_instances(
    objectness: Float[Tensor, "h w"],
    centre: Float[Tensor, "h w"],
    offset: Float[Tensor, "2 h w"],
    label_logits: Float[Tensor, "l h w"],
) -> tuple[Bool[Tensor, "n h w"], Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Objects from raw outputs at the image's size, best first: masks, label ids, scores.

    A connected region is one object, unless it has several clear centres; then its pixels go to the centre they point at.
    """
    inside = objectness.sigmoid()
    pieces, _ = connected((inside > 0.5).cpu().numpy())
    regions = _split(torch.from_numpy(pieces).long().to(inside.device), _peaks(centre.sigmoid()), offset)
    flat = regions.flatten()
    areas = torch.bincount(flat)
    areas[0] = 0  # pixels of no object
    large = (areas >= MIN_PIXELS).nonzero().flatten()
    if not len(large):
        empty = inside.new_zeros(0)
        return inside.new_zeros(0, *inside.shape).bool(), empty.long(), empty
    area = areas[large]
    pixels = (areas[flat] >= MIN_PIXELS).nonzero().flatten()
    pixels = pixels[flat[pixels].argsort(stable=True)]  # region by region
    values = torch.cat([label_logits.softmax(0).flatten(1), inside.flatten()[None]])[:, pixels].T.double()
    means = torch.segment_reduce(values.contiguous(), "mean", lengths=area).to(inside.dtype)  # ty: ignore[missing-attribute]
    label_score, labels = means[:, :-1].max(1)
    size = (area / (FULL_AREA * inside.numel())).clamp(max=1).sqrt()
    scores = (label_score * means[:, -1] * size).clamp(0, 1)
    order = scores.argsort(descending=True)[:MAX_OBJECTS]
    return regions == large[order][:, None, None], labels[order], scores[order]


def _peaks(heat: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Clear centres that no higher one is near."""
    reach = max(heat.shape) // PEAK_SPACING
    rows = F.max_pool2d(heat[None, None], (2 * reach + 1, 1), 1, (reach, 0))
    highest = F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[0, 0]
    return (highest == heat) & (heat > CENTRE_THRESHOLD)


def _split(
    regions: Int64[Tensor, "h w"], peaks: Bool[Tensor, "h w"], offset: Float[Tensor, "2 h w"]
) -> Int64[Tensor, "h w"]:
    """Region numbers, 0 where there is none; every region with several clear centres becomes one region per centre."""
    at = (peaks & (regions > 0)).nonzero()
    owners, counts = regions[at[:, 0], at[:, 1]].unique(return_counts=True)
    result, last = regions.clone(), int(regions.max())
    for owner in owners[counts > 1].tolist():
        own = at[regions[at[:, 0], at[:, 1]] == owner].float()
        y, x = (regions == owner).nonzero(as_tuple=True)
        aims = torch.stack([y, x], 1).float() + offset[:, y, x].T * max(regions.shape)
        result[y, x] = last + 1 + torch.cdist(aims, own).argmin(1)
        last += len(own)
    return result


def _focal(logit: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Penalty-reduced focal loss per centre: near misses beside a centre count less."""
    p = logit.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = (heat > 0.999) & known
    positive = ((1 - p) ** 2 * p.log())[hit].sum()
    negative = ((1 - heat) ** 4 * p**2 * (1 - p).log() * known)[~hit].sum()
    return -(positive + negative) / hit.sum().clamp_min(1)
