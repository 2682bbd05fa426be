"""Separate objects: what belongs to one, where its centre is, which pixels point there, and what its label is.

Connected pixels are one object; where a region has several clear centres, its pixels vote for theirs (Cheng et al. 2020,
Panoptic-DeepLab). Every labelled pixel teaches, where a set of object queries learns from one match an object. An
object's label is the one its pixels' words agree on, so any vocabulary works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from scipy.ndimage import label as connected
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.tasks import Head, Outputs, calibrated
from datasetdm.metrics import InstanceMeter
from datasetdm.records import Annotations, Instances, Labels, Sample

UNKNOWN = -1.0
"""In target maps: 0 is a pixel of no object, 1, 2, ... are objects, UNKNOWN is a pixel that nobody labelled."""

MOST, SMALLEST = 30, 16
"""Objects a picture at most; pixels an object at least."""

CLEAR = 0.4
"""What a centre must reach to split a region."""


class InstanceHead(Head):
    """Outputs: `object` (logit), `centre` (logit), `offset` (to the centre, y and x, as a share of the canvas) and `label`
    (a logit a label). Where there is a semantic task, its logits are in `label`, and what it says of a pixel is in `object`:
    some words mean things, others surroundings.

    Buffer: slope and shift of the scores' logit.
    """

    trust: Tensor

    def __init__(self, widths: Mapping[int, int], text_width: int, words: int = 32):
        super().__init__()
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, 4 + words, 1) for s, w in widths.items()})
        self.words = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, words + 1))
        self.things = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, 1))
        nn.init.zeros_(self.things[1].weight)  # ty: ignore[invalid-argument-type]
        self.register_buffer("trust", torch.tensor([1.0, 0.0]))

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        out = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()}).float()
        words = self.words(text.float()).float()
        label = torch.einsum("lc,bchw->blhw", words[:, 1:] * (words.shape[1] - 1) ** -0.5, out[:, 4:])
        label = label + words[:, :1, None]
        thing = out[:, :1]
        if "semantic" in before:
            known = before["semantic"]["semantic"].detach().float()
            is_thing = 4 * self.things(text.float()).float().squeeze(1)
            label, thing = label + known, thing + torch.einsum("blhw,l->bhw", known.softmax(1), is_thing)[:, None]
        return {"object": thing, "centre": out[:, 1:2] - 3, "offset": out[:, 2:4] * 0.1, "label": label}

    def tune(self, outputs: Sequence[Outputs], targets: Sequence[Outputs]) -> None:
        """Scores become the share of held-out objects found with such a score that are right."""
        logits, right = [], []
        for own, truth in zip(outputs, targets, strict=True):
            for i, (ids, labels) in enumerate(zip(truth["object"], truth["label"], strict=True)):
                for mask, label, score in zip(*read({k: v[i] for k, v in own.items()}), strict=True):
                    if 2 * int((mask & (ids >= 0)).sum()) >= int(mask.sum()):  # somebody labelled there
                        logits.append(float(torch.logit(score, 1e-4)))
                        right.append(is_right(mask, int(label), ids, labels))
        trust = calibrated(torch.tensor(logits), torch.tensor(right, dtype=torch.float32))
        if trust is not None:
            self.trust.copy_(trust)


class Instance:
    """See `Task`."""

    name = "instance"
    field = "instances"

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> Head:
        return InstanceHead(widths, text_width)

    def target(self, sample: Sample) -> dict[str, Any] | None:
        """Small objects lie on top of large ones where masks overlap."""
        record = sample.instances
        if record is None:
            return None
        ids, labels = np.zeros(sample.size, np.float32), np.full(sample.size, UNKNOWN, np.float32)
        for i in np.argsort(-record.masks.areas):
            mask = record.masks[i]
            ids[mask], labels[mask] = i + 1, record.label_ids[i]
        return {"object": ids, "label": labels}

    def blank(self) -> dict[str, float]:
        return {"object": UNKNOWN, "label": UNKNOWN}

    def zoomed(self, key: str, values: Tensor, zoom: float) -> Tensor:
        return values

    def loss(self, head: Head, outputs: Outputs, targets: Outputs) -> Tensor:
        """Cross-entropy and dice of objectness, focal loss of centres (Law & Deng 2018), L1 of offsets, labels."""
        ids = targets["object"].long()
        known, inside = ids >= 0, ids > 0
        logit = outputs["object"][:, 0]
        if not known.any():
            return logit.sum() * 0
        masks = F.one_hot(ids.clamp_min(0), int(ids.max()) + 1).movedim(-1, 1)[:, 1:].float()
        heat, offset, area = centres(masks)
        p = logit.sigmoid() * known
        dice = 1 - 2 * (p * inside).sum() / (p.sum() + inside.sum()).clamp_min(1)
        loss = F.binary_cross_entropy_with_logits(logit[known], inside[known].float()) + 0.5 * dice
        loss = loss + 0.5 * _focal(outputs["centre"][:, 0], heat, known)
        if not inside.any():
            return loss
        weight = area.clamp_min(16) ** -0.5 * inside  # small objects count, one by one, more than their pixels
        weight = weight / weight.sum()
        far = (outputs["offset"] - offset).abs().sum(1)
        labels = F.cross_entropy(outputs["label"], targets["label"].long(), ignore_index=-1, reduction="none")
        return loss + 5 * (far * weight).sum() + 0.5 * (labels * weight).sum()

    def record(self, head: Head, outputs: Outputs, labels: Labels, before: Annotations) -> Instances:
        assert isinstance(head, InstanceHead)
        masks, label_ids, scores = read(outputs)
        scores = (torch.logit(scores, 1e-4) * head.trust[0] + head.trust[1]).sigmoid()
        return Instances.from_masks(masks.cpu().numpy(), label_ids.cpu().numpy(), scores.cpu().numpy())

    def meter(self) -> InstanceMeter:
        return InstanceMeter()


def read(
    outputs: Outputs,
) -> tuple[Bool[Tensor, "n h w"], Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """`gather` from the outputs of one picture, f[c h w] each."""
    return gather(
        outputs["object"][0].float(), outputs["centre"][0].float(), outputs["offset"].float(), outputs["label"].float()
    )


def is_right(mask: Bool[Tensor, "h w"], label: int, ids: Float[Tensor, "h w"], labels: Float[Tensor, "h w"]) -> bool:
    """Whether a true object of this label has at least half of its union with the mask in common with it; `ids` and `labels` are
    target maps, and pixels that nobody labelled do not count."""
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
    to its own centre as a share of the canvas (y, x); and the area of its object in pixels."""
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


def gather(
    thing: Float[Tensor, "h w"],
    centre: Float[Tensor, "h w"],
    offset: Float[Tensor, "2 h w"],
    label: Float[Tensor, "l h w"],
) -> tuple[Bool[Tensor, "n h w"], Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Objects from raw outputs at the picture's size, best first: masks, labels, scores.

    What hangs together is one object, unless it has several clear centres; then its pixels go where they point.
    """
    inside = thing.sigmoid()
    pieces, count = connected((inside > 0.5).cpu().numpy())
    regions = (torch.from_numpy(pieces == i + 1).to(thing.device) for i in range(count))
    peaks = _peaks(centre.sigmoid())
    found = [m for region in regions for m in _parts(region, peaks, offset) if int(m.sum()) >= SMALLEST]
    if not found:
        empty = thing.new_zeros(0)
        return thing.new_zeros(0, *thing.shape).bool(), empty.long(), empty
    masks = torch.stack(found)
    area = masks.sum((1, 2))
    share = masks.flatten(1).float() / area[:, None]
    sure, labels = (share @ label.softmax(0).flatten(1).T).max(1)
    large = (area / (0.03 * thing.numel())).clamp(max=1).sqrt()
    scores = (sure * (share @ inside.flatten()) * large).clamp(0, 1)
    order = scores.argsort(descending=True)[:MOST]
    return masks[order], labels[order], scores[order]


def _peaks(heat: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Clear centres that no higher one is near."""
    reach = max(heat.shape) // 18
    rows = F.max_pool2d(heat[None, None], (2 * reach + 1, 1), 1, (reach, 0))
    return (F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[0, 0] == heat) & (heat > CLEAR)


def _parts(region: Bool[Tensor, "h w"], peaks: Bool[Tensor, "h w"], offset: Float[Tensor, "2 h w"]) -> list[Tensor]:
    """The objects of one connected region."""
    side = max(region.shape)
    at = (peaks & region).nonzero().float()
    if len(at) < 2:
        return [region]
    y, x = region.nonzero(as_tuple=True)
    aims = torch.stack([y, x], 1).float() + offset[:, y, x].T * side
    parts = torch.zeros(len(at), *region.shape, dtype=torch.bool, device=region.device)
    parts[torch.cdist(aims, at).argmin(1), y, x] = True
    return list(parts)


def _focal(logit: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Penalty-reduced focal loss, a centre's share: near misses beside a centre count less."""
    p = logit.sigmoid().clamp(1e-4, 1 - 1e-4)
    hit = (heat > 0.999) & known
    positive = ((1 - p) ** 2 * p.log())[hit].sum()
    negative = ((1 - heat) ** 4 * p**2 * (1 - p).log() * known)[~hit].sum()
    return -(positive + negative) / hit.sum().clamp_min(1)
