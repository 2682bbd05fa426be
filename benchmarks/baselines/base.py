"""What baselines share: they are P-Decoders with another trunk and other heads, so that `datasetdm.pipelines.fit` fits them and
`datasetdm.pipelines.evaluate` measures them exactly as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import NAMED
from datasetdm.decoder.blocks.pixel import Pyramid, merge
from datasetdm.decoder.model import DecoderConfig, PDecoder
from datasetdm.decoder.tasks import Head, Outputs, Task, make_task
from datasetdm.decoder.tasks.depth import DepthHead
from datasetdm.decoder.tasks.semantic import SemanticHead

DOUBT = 0.2
"""Share of a caption's labels that is left out while a network learns that is told them."""


class Baseline(PDecoder):
    """A trunk (feature maps in, pyramid out; `widths` are its channels by stride) and a head a task.

    TASKS: those that it can do, None for all. RATES: learning rates to choose from. VARIANTS: augmented copies.
    LEAST: steps at least, however long they take. TOLD: whether it hears which labels the caption names, as ours does.
    """

    TASKS: ClassVar[tuple[str, ...] | None] = None
    RATES: ClassVar[tuple[float, float, float]] = (3e-4, 1e-3, 3e-3)
    VARIANTS: ClassVar[int] = 6
    LEAST: ClassVar[int] = 50
    TOLD: ClassVar[bool] = False

    pixels: Any
    heads: Any

    def __init__(self, config: DecoderConfig):
        nn.Module.__init__(self)
        self.config = config
        self.tasks = {name: self.task(name) for name in config.tasks}
        self.pixels = self.trunk()
        self.heads = nn.ModuleDict({name: self.head(name) for name in config.tasks})

    def trunk(self) -> nn.Module:
        """A fresh trunk for `self.config`."""
        raise NotImplementedError

    def task(self, name: str) -> Task:
        """Ours."""
        return make_task(name)

    def head(self, name: str) -> Head:
        """Ours, but with one weight vector a label in place of label queries."""
        widths = self.pixels.widths
        if name == "semantic":
            return LinearSemanticHead(widths, len(self.config.labels), self.TOLD)
        return self.tasks[name].head((), widths, self.config.text_width)


class LinearLabels(nn.Module):
    """A linear classifier of every pixel, summed over strides; if told, also of whether the caption names the label."""

    def __init__(self, widths: Mapping[int, int], labels: int, told: bool):
        super().__init__()
        self.named = nn.Parameter(torch.zeros(labels)) if told else None
        self.convs = nn.ModuleDict({str(s): nn.Conv2d(w, labels, 1) for s, w in widths.items()})

    def forward(self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor) -> Tensor:
        logits = merge({s: self.convs[str(s)](x) for s, x in pyramid.items()})
        if self.named is None or NAMED not in maps:
            return logits
        said = F.dropout(maps[NAMED].float(), DOUBT, self.training)  # captions are not always right
        return logits + (said * self.named)[..., None, None]


class BareSemanticHead(SemanticHead):
    """Our semantic head's buffers without its decoder."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.register_buffer("weights", torch.ones(0), persistent=False)
        self.register_buffer("temperature", torch.ones(()))


class LinearSemanticHead(BareSemanticHead):
    """A closed vocabulary, as in a usual segmentation network."""

    def __init__(self, widths: Mapping[int, int], labels: int, told: bool):
        super().__init__()
        self.decoder = LinearLabels(widths, labels, told)


class PlainDepthHead(DepthHead):
    """Depth from pixels alone, without what labels' regions say of its scale."""

    def __init__(self, widths: Mapping[int, int]):
        super().__init__(widths, 1)
        self.scale = nn.Identity()

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        return super().forward(pyramid, maps, text, {})


def deafen(decoder: PDecoder) -> PDecoder:
    """The same decoder, whose semantic head is not told any more which labels the caption names."""

    def without(head: nn.Module, given: tuple) -> tuple:
        pyramid, maps, *rest = given
        return pyramid, {k: v for k, v in maps.items() if k != NAMED}, *rest

    if "semantic" in decoder.tasks:
        decoder.heads["semantic"].register_forward_pre_hook(without)
    return decoder
