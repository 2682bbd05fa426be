"""Kinds of annotation. A new one is a file here with the same verbs as its siblings, and one line in `TASKS`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid
from datasetdm.errors import unknown_name
from datasetdm.records import Annotation, Annotations, Labels, Sample

TASKS = {
    "semantic": "datasetdm.decoder.tasks.semantic:Semantic",
    "depth": "datasetdm.decoder.tasks.depth:Depth",
    "instance": "datasetdm.decoder.tasks.instance:Instance",
    "keypoints": "datasetdm.decoder.tasks.keypoints:KeypointTask",
}
"""Task name -> its class, in the order in which their heads run."""

NEEDS = {"keypoints": ("instance",)}
"""Annotations that a task's target reads beside its own."""

Outputs = Mapping[str, Tensor]


class Head(nn.Module):
    """What a task adds to the pixel decoder: pyramid, feature maps and label text in, raw outputs out."""

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Tensor, before: Mapping[str, Outputs]
    ) -> dict[str, Tensor]:
        """Outputs at the finest stride, `f[b c h w]` each. `before`: those of the tasks that precede in `TASKS`."""
        raise NotImplementedError

    def calibrate(self, samples: Sequence[Sample]) -> None:
        """Set buffers from the fitting samples, before the first step."""

    def tune(self, outputs: Sequence[Outputs], targets: Sequence[Outputs]) -> None:
        """Set buffers from held-out predictions, after the last step."""


@runtime_checkable
class Task(Protocol):
    """One kind of annotation. `Outputs` are batched tensors, targets have the same keys for every sample."""

    name: str
    field: str
    """The field of `Annotations` that holds its records."""

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> Head:
        """A fresh head."""
        ...

    def target(self, sample: Sample) -> dict[str, Any] | None:
        """This task's maps `[h w]` of one sample at the image's size, or None if it has no such label."""
        ...

    def blank(self) -> dict[str, float]:
        """What the maps of `target` hold where nothing is known (padding, samples without this label)."""
        ...

    def zoomed(self, key: str, values: Tensor, zoom: float) -> Tensor:
        """What a target map holds once things appear `zoom` times larger than they did (negative: mirrored, too)."""
        ...

    def loss(self, head: Head, outputs: Outputs, targets: Outputs) -> Tensor:
        """A scalar; pixels that hold `blank` do not count."""
        ...

    def record(self, head: Head, outputs: Outputs, labels: Labels, before: Annotations) -> Annotation | None:
        """The annotation of one picture from its outputs `f[c h w]` at the picture's size; None where it needs one that is
        not there.

        labels: those that the outputs are about. before: what the tasks that precede in `TASKS` found.
        """
        ...

    def meter(self) -> Meter:
        """A fresh accumulator of this task's figures."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Figures over many samples."""

    better: tuple[str, bool]
    """The figure that stands for the task, between 0 and 1, and whether more is better."""

    def update(self, predicted: Any, true: Any, labels: int) -> None:
        """Add one picture: two records, and the size of the vocabulary. What else a meter takes has a default."""
        ...

    def compute(self) -> dict[str, float]:
        """The figures so far."""
        ...


def sample_pixels(outputs: Outputs, targets: Outputs, count: int = 4096) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same random pixels of dense outputs f[b c h w] and targets f[b h w], as f[b c n 1] and f[b n 1].

    A loss over a quarter of the pixels costs a quarter and learns as much (Kirillov et al. 2020, PointRend).
    """
    pixels = next(iter(targets.values()))[0].numel()
    chosen = torch.randperm(pixels)[: min(count, pixels)]
    take = {k: v.flatten(2).index_select(2, chosen.to(v.device))[..., None] for k, v in outputs.items()}
    return take, {k: v.flatten(1).index_select(1, chosen.to(v.device))[..., None] for k, v in targets.items()}


FLATTEST = 0.05
"""The smallest slope of a calibration."""


def calibrated(logits: Tensor, right: Tensor) -> Tensor | None:
    """Slope and shift with which `sigmoid(slope * logit + shift)` is most likely the probability of being right, or None where
    that cannot be known: Platt 1999, with his smoothing for few examples. The slope is at least `FLATTEST`: no order changes.

    logits: f[n]. right: f[n], 0 or 1.
    """
    yes = float(right.sum())
    no = len(right) - yes
    if not yes or not no or not torch.isfinite(logits).all():
        return None
    target = torch.where(right > 0, (yes + 1) / (yes + 2), 1 / (no + 2))
    free = torch.zeros(
        2, device=logits.device, requires_grad=True
    )  # log of what the slope has above the flattest, shift
    solver = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * (FLATTEST + free[0].exp()) + free[1], target)
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    found = torch.stack([FLATTEST + free[0].exp(), free[1]]).detach()
    return found if torch.isfinite(found).all() else None


def make_task(name: str) -> Task:
    """A task by name."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    module, cls = TASKS[name].split(":")
    return getattr(importlib.import_module(module), cls)()
