"""What baselines share: they are P-Decoders with another trunk and other heads, so that `datasetdm.pipelines.fit` fits them and
`datasetdm.pipelines.evaluate` measures them exactly as ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import DecoderConfig, PDecoder
from datasetdm.decoder.tasks import TASKS, Head, Previous, Task, make_task
from datasetdm.decoder.tasks.depth import DepthHead, DepthOutputs
from datasetdm.decoder.tasks.semantic import SemanticHead

MENTION_DROPOUT = 0.2
"""Probability that a caption label is dropped while a caption-conditioned network learns: captions are not always right."""


class Baseline(PDecoder):
    """A trunk (feature maps in, pyramid out; `widths` are its channels by stride) and a head per task.

    TASKS: those that it can do, None for all. RATES: learning rates to choose from. VARIANTS: augmented copies.
    LEAST: steps at least, however long they take. CAPTION_LABELS: whether its input has the caption labels, as ours has.
    """

    TASKS: ClassVar[tuple[str, ...] | None] = None
    RATES: ClassVar[tuple[float, float, float]] = (3e-4, 1e-3, 3e-3)
    VARIANTS: ClassVar[int] = 6
    LEAST: ClassVar[int] = 50
    CAPTION_LABELS: ClassVar[bool] = False

    pixels: Any
    heads: Any

    def __init__(self, config: DecoderConfig):
        nn.Module.__init__(self)
        self.config = config
        self.tasks = {name: self.task(name) for name in TASKS if name in config.tasks}
        self.pixels = self.trunk()
        self.heads = nn.ModuleDict({name: self.head(name) for name in config.tasks})

    def trunk(self) -> nn.Module:
        """A fresh trunk for `self.config`."""
        raise NotImplementedError

    def task(self, name: str) -> Task:
        """Ours."""
        return make_task(name)

    def head(self, name: str) -> Head:
        """Ours, but with one weight vector per label in place of label queries."""
        widths = self.pixels.widths
        if name == "semantic":
            return LinearSemanticHead(widths, len(self.config.labels), self.CAPTION_LABELS)
        return self.tasks[name].head((), widths, self.config.text_width)


class LinearLabels(nn.Module):
    """A linear classifier of every pixel, summed over strides; with caption labels, one more weight per label for those."""

    def __init__(self, widths: Mapping[int, int], labels: int, caption_labels: bool):
        super().__init__()
        self.named = nn.Parameter(torch.zeros(labels)) if caption_labels else None
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, labels, 1) for s, w in widths.items()})

    def forward(self, pyramid: Pyramid, inputs: DecoderInput) -> Tensor:
        logits = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()})
        if self.named is None or inputs.mentioned is None:
            return logits
        mentioned = F.dropout(inputs.mentioned.float(), MENTION_DROPOUT, self.training)
        return logits + (mentioned * self.named)[..., None, None]


class BareSemanticHead(SemanticHead):
    """Our semantic head's buffers without its decoder."""

    decoder: Any

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.register_buffer("weights", torch.ones(0), persistent=False)
        self.register_buffer("temperature", torch.ones(()))


class LinearSemanticHead(BareSemanticHead):
    """A closed vocabulary, as in a usual segmentation network."""

    def __init__(self, widths: Mapping[int, int], labels: int, caption_labels: bool):
        super().__init__()
        self.decoder = LinearLabels(widths, labels, caption_labels)


class PlainDepthHead(DepthHead):
    """Depth from pixels alone, without what labels' regions say of its scale."""

    scale: Any

    def __init__(self, widths: Mapping[int, int]):
        super().__init__(widths, 1)
        self.scale = nn.Identity()

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> DepthOutputs:
        return super().forward(pyramid, inputs, Previous())


def without_caption_labels(decoder: PDecoder) -> PDecoder:
    """The same decoder, whose semantic head does not get the caption labels any more."""

    def drop(head: nn.Module, given: tuple) -> tuple:
        pyramid, inputs, *rest = given
        return pyramid, replace(inputs, mentioned=None), *rest

    if "semantic" in decoder.tasks:
        heads: Any = decoder.heads
        heads["semantic"].register_forward_pre_hook(drop)
    return decoder
