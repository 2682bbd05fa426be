"""DatasetDM's own decoder (Wu et al. 2023, arXiv 2308.06160) on our features, written from the paper.

Pixel decoder: at every resolution hidden maps and cross-attention maps are concatenated, projected by a 1x1 convolution and
fused from coarse to fine. Segmentation: 10 transformer layers of width 256 with 8 heads and 100 queries on 3 levels, with
masked attention and a loss after every layer (Cheng et al. 2022, Mask2Former, on which the paper builds). Depth: a sigmoid
times the largest depth, under the scale-invariant log loss. Sizes and weights are the paper's, the masks'
stride is Mask2Former's. A step takes several times as long as ours: it gets as many, and so more time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.base import BareSemanticHead, Baseline, PlainDepthHead
from datasetdm.decoder.blocks.pixel import Pyramid, Standardise, level_widths, module_key, positions
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import Head, Previous, Task, Tensors, make_task, sample_pixels
from datasetdm.decoder.tasks.depth import DepthHead, DepthOutputs, DepthTargets, DepthTask
from datasetdm.decoder.tasks.instance import InstanceTargets, InstanceTask
from datasetdm.decoder.tasks.semantic import SemanticOutputs, SemanticTargets, SemanticTask
from datasetdm.downstream.matching import matched_loss
from datasetdm.records import IGNORE, Annotations, Instances, Labels, Sample

WIDTH, LAYERS, HEADS, QUERIES, FEEDFORWARD, LEVELS = 256, 10, 8, 100, 1024, 3
KEPT = 30
"""Instances per image at most."""


class PaperPixels(nn.Module):
    """Hidden, VAE and attention maps -> f[b 256 h w] at every stride down to 4, as in Mask2Former."""

    def __init__(self, specs: Sequence, side: int, labels: int):
        super().__init__()
        strides = level_widths(specs, side, WIDTH, finest=side // 4)
        self.widths = dict.fromkeys(strides, WIDTH)
        self.specs = {k: [s for s in specs if s.stride == k] for k in strides}
        used = [s for own in self.specs.values() for s in own]
        self.norms = nn.ModuleDict({module_key(s.name): Standardise(s.channels) for s in used})
        sizes = {
            k: sum(s.channels * (labels if s.kind == "attention" else 1) for s in own) for k, own in self.specs.items()
        }
        self.projections = nn.ModuleDict({str(k): nn.Conv2d(c, WIDTH, 1) for k, c in sizes.items()})
        self.smooth = nn.ModuleDict(
            {
                str(k): nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(32, WIDTH), nn.ReLU())
                for k in sizes
            }
        )

    def forward(self, maps: Mapping[str, Tensor]) -> Pyramid:
        levels: Pyramid = {}
        above: Tensor | None = None
        for stride, specs in self.specs.items():
            own = [self.norms[module_key(s.name)](maps[s.name]) for s in specs]
            x = self.projections[str(stride)](torch.cat([m.flatten(1, 2) if m.ndim == 5 else m for m in own], 1))
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[-2:], mode="bilinear", align_corners=False)
            above = levels[stride] = self.smooth[str(stride)](x)
        return levels


class Layer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; normalised after each."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mutual = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, FEEDFORWARD), nn.ReLU(), nn.Linear(FEEDFORWARD, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, q: Tensor, own: Tensor, memory: Tensor, where: Tensor, hidden: Tensor) -> Tensor:
        """own: the queries' positions f[q c]; where: the memory's f[n c]; hidden: what a query may not see b[b q n]."""
        mask = hidden.repeat_interleave(HEADS, 0)
        x = self.cross(q + own, memory + where, memory, attn_mask=mask, need_weights=False)[0]
        q = self.norms[0](q + x)
        q = self.norms[1](q + self.mutual(q + own, q + own, q, need_weights=False)[0])
        return self.norms[2](q + self.mlp(q))


class QueryDecoder(nn.Module):
    """A pyramid -> (masks f[n b q h w], classes f[n b q labels + 1]) before the first and after every layer."""

    def __init__(self, labels: int):
        super().__init__()
        self.queries, self.own = (nn.Parameter(torch.randn(QUERIES, WIDTH) * 0.02) for _ in range(2))
        self.levels = nn.Parameter(torch.zeros(LEVELS, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classes = nn.Linear(WIDTH, labels + 1)
        self.masks = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        coarse, finest = list(pyramid.values())[:LEVELS], pyramid[min(pyramid)]
        q = self.queries.expand(len(finest), -1, -1)
        steps = [self._predict(q, finest)]
        for i, layer in enumerate(self.layers):
            level = i % len(coarse)
            x = coarse[level]
            memory = x.flatten(2).transpose(1, 2) + self.levels[level]
            where = positions(x).flatten(1).T
            seen = F.interpolate(steps[-1][0].detach().float(), x.shape[-2:], mode="bilinear", align_corners=False)
            hidden = seen.flatten(2) < 0
            hidden = hidden & ~hidden.all(-1, keepdim=True)
            q = layer(q, self.own, memory, where, hidden)
            steps.append(self._predict(q, finest))
        masks, classes = zip(*steps, strict=True)
        return torch.stack(masks), torch.stack(classes)

    def _predict(self, q: Tensor, finest: Tensor) -> tuple[Tensor, Tensor]:
        q = self.norm(q)
        return torch.einsum("bqc,bchw->bqhw", self.masks(q), finest).float(), self.classes(q).float()


@dataclass(frozen=True)
class QueryOutputs(Tensors):
    """What every layer's queries predict while the decoder learns: mask logits and class logits ("nothing" last)."""

    masks: Float[Tensor, "*b n q h w"]
    classes: Float[Tensor, "*b n q c"]


class QueryHead(Head):
    """While it learns all layers' queries, afterwards what `read` makes of the last layer's."""

    decoder: QueryDecoder

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> Any:
        masks, classes = self.decoder(pyramid)
        if self.training:
            return QueryOutputs(masks.movedim(0, 1), classes.movedim(0, 1))
        return self.read(masks[-1], classes[-1].softmax(-1)[..., :-1])

    def read(self, masks: Tensor, labels: Tensor) -> Tensors:
        """Outputs from mask logits f[b q h w] and the labels' probabilities f[b q l]."""
        raise NotImplementedError


class PaperSemanticHead(QueryHead, BareSemanticHead):
    """Log probabilities of the labels."""

    def __init__(self, labels: int):
        super().__init__()
        self.decoder = QueryDecoder(labels)

    def read(self, masks: Tensor, labels: Tensor) -> SemanticOutputs:
        return SemanticOutputs((torch.einsum("bql,bqhw->blhw", labels, masks.sigmoid()) + 1e-6).log())


class PaperSemantic(SemanticTask):
    """Mask classification: the pixels of a label are one segment."""

    def loss(self, head: Head, outputs: Any, targets: SemanticTargets) -> Tensor:
        ids = targets.ids.long()
        segments = [i[i != IGNORE].unique() for i in ids]
        truth = [(i[None] == s[:, None, None]).float() for i, s in zip(ids, segments, strict=True)]
        return _matched_loss(outputs, truth, segments, ids != IGNORE)


@dataclass(frozen=True)
class QueryInstances(Tensors):
    """The `KEPT` best (query, label) pairs of an image: mask logits, label ids and scores."""

    masks: Float[Tensor, "*b n h w"]
    label: Float[Tensor, "*b n y x"]
    score: Float[Tensor, "*b n y x"]


class PaperInstanceHead(QueryHead):
    """Its outputs are `QueryInstances` with labels and scores f[b n 1 1]."""

    def __init__(self, labels: int):
        super().__init__()
        self.decoder = QueryDecoder(labels)

    def read(self, masks: Tensor, labels: Tensor) -> QueryInstances:
        scores, pairs = labels.flatten(1).topk(KEPT)
        queries, ids = pairs // labels.shape[-1], pairs % labels.shape[-1]
        chosen = masks.gather(1, queries[..., None, None].expand(-1, -1, *masks.shape[-2:]))
        return QueryInstances(chosen, ids[..., None, None].float(), scores[..., None, None])


class PaperInstance(InstanceTask):
    """Mask classification: an object is a segment."""

    def loss(self, head: Head, outputs: Any, targets: InstanceTargets) -> Tensor:
        ids = targets.objects.long()
        found = [i[i > 0].unique() for i in ids]
        truth = [(i[None] == s[:, None, None]).float() for i, s in zip(ids, found, strict=True)]
        labels = [
            torch.stack([own[m > 0][0] for m in t]).long() if len(t) else own.new_zeros(0).long()
            for own, t in zip(targets.labels, truth, strict=True)
        ]
        return _matched_loss(outputs, truth, labels, ids >= 0)

    def postprocess(self, head: Head, outputs: Any, labels: Labels, previous: Annotations) -> Instances:
        """A score is the label's probability times the mask's mean probability over its pixels."""
        p, masks = outputs.masks.sigmoid(), outputs.masks > 0
        area = masks.sum((1, 2))
        scores = outputs.score[:, 0, 0] * (p * masks).sum((1, 2)) / area.clamp_min(1)
        some = area > 0
        ids = outputs.label[:, 0, 0].round().long()
        return Instances.from_masks(masks[some].cpu().numpy(), ids[some].cpu().numpy(), scores[some].cpu().numpy())


def _matched_loss(outputs: QueryOutputs, truth: Sequence[Tensor], labels: Sequence[Tensor], known: Tensor) -> Tensor:
    return matched_loss(outputs.masks.movedim(1, 0), outputs.classes.movedim(1, 0), truth, labels, known)


class PaperDepthHead(PlainDepthHead):
    """A sigmoid times the largest depth of the fitting images."""

    def fit_statistics(self, samples: Sequence[Sample]) -> None:
        super().fit_statistics(samples)
        records = (s.depth for s in samples if s.depth is not None)
        self.mean.fill_(math.log(max(float(r.depth.max(initial=1e-3)) for r in records)))
        self.std.fill_(1)

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> DepthOutputs:
        finest = min(pyramid)
        out = super().forward({finest: pyramid[finest]}, inputs, previous)
        return replace(out, log_depth=F.logsigmoid(out.log_depth - self.mean) + self.mean)


class PaperDepth(DepthTask):
    """SiLog alone, and ours for where there is depth (the paper's images have it everywhere)."""

    def loss(self, head: DepthHead, outputs: DepthOutputs, targets: DepthTargets) -> Tensor:
        outputs, targets = sample_pixels(outputs, targets)
        depth, log_depth, validity = targets.depth, outputs.log_depth[:, 0], outputs.validity[:, 0]
        valid, known = depth > 0, depth >= 0
        if not valid.any():
            return log_depth.sum() * 0
        error = log_depth[valid] - depth[valid].log()
        silog = (error.square().mean() - 0.85 * error.mean().square() + 1e-6).sqrt()
        return silog + F.binary_cross_entropy_with_logits(validity[known], valid[known].float())


class PaperDecoder(Baseline):
    """See the module."""

    TASKS = ("semantic", "depth", "instance")
    RATES = (1e-4, 3e-4, 1e-3)
    LEAST = 140

    def trunk(self) -> nn.Module:
        return PaperPixels(self.config.specs, self.config.side, len(self.config.labels))

    def task(self, name: str) -> Task:
        own: dict[str, type] = {"semantic": PaperSemantic, "depth": PaperDepth, "instance": PaperInstance}
        return own[name]() if name in own else make_task(name)

    def head(self, name: str) -> Head:
        labels = len(self.config.labels)
        if name == "depth":
            return PaperDepthHead({min(self.pixels.widths): WIDTH})
        return PaperSemanticHead(labels) if name == "semantic" else PaperInstanceHead(labels)
