"""Kinds of annotation. A new one is a file here with the same methods as its siblings, and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.io.registry import Registry
from datasetdm.metrics.meter import Meter
from datasetdm.records import Annotation, AnnotationName, Annotations, Labels, Sample

S = TypeVar("S", bound="Tensors")


@dataclass(frozen=True)
class Tensors:
    """Base of the dataclasses that hold a task's outputs or targets: every field is a tensor."""

    def named(self) -> dict[str, Tensor]:
        """The tensors by field."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def map(self: S, change: Callable[..., Tensor], *others: S) -> S:
        """`change` of every tensor (and of the same field of `others`)."""
        return type(self)(**{k: change(x, *(getattr(o, k) for o in others)) for k, x in self.named().items()})

    def to(self: S, device: torch.device | str) -> S:
        """The same on another device."""
        return self.map(lambda x: x.to(device))

    def __getitem__(self: S, rows: int | slice | Tensor) -> S:
        """One row, or some rows, of every tensor."""
        return self.map(lambda x: x[rows])

    @classmethod
    def stack(cls: type[S], rows: Sequence[S]) -> S:
        """A batch of single images."""
        return rows[0].map(lambda *x: torch.stack(x), *rows[1:])


H = TypeVar("H", bound="Head")
O = TypeVar("O", bound=Tensors)  # noqa: E741
T = TypeVar("T", bound=Tensors)
O_contra = TypeVar("O_contra", bound=Tensors, contravariant=True)


class Previous:
    """The outputs of the tasks that ran earlier, by type."""

    def __init__(self, outputs: Iterable[Tensors] = ()):
        self._outputs = tuple(outputs)

    def get(self, kind: type[O]) -> O | None:
        """The outputs of this type, or None if no such task ran."""
        return next((o for o in self._outputs if isinstance(o, kind)), None)


class Head(nn.Module, Generic[O, T]):
    """What a task adds to the pixel decoder."""

    def forward(self, pyramid: Pyramid, inputs: DecoderInput, previous: Previous) -> O:
        """Outputs at the finest stride, `f[b c h w]` each. `previous`: those of the tasks that precede in `TASKS`."""
        raise NotImplementedError

    def fit_statistics(self, samples: Sequence[Sample]) -> None:
        """Set buffers from the fitting samples, before the first step."""

    def calibrate(self, outputs: Sequence[O], targets: Sequence[T]) -> None:
        """Set buffers from batches of held-out predictions at the canvas' size, after the last step."""


@runtime_checkable
class Task(Protocol[H, O_contra, T]):
    """One kind of annotation: a head, its outputs and its targets."""

    name: str
    field: AnnotationName
    """The field of `Sample` that holds its annotation."""
    needs: tuple[AnnotationName, ...]
    """Other fields of `Sample` that `target` and `postprocess` read."""

    def head(self, specs: Sequence[FeatureSpec], widths: Mapping[int, int], text_width: int) -> H:
        """A fresh head. `widths`: channels of the pyramid by stride."""
        ...

    def target(self, sample: Sample) -> T | None:
        """What the head should find in one sample: maps `[h w]` or `[c h w]` at its size; None if it has no such label."""
        ...

    def fill_values(self) -> T:
        """A target of 1 x 1 pixels where nothing is known. Padding and samples without this label hold these values, and
        the loss ignores them."""
        ...

    def rescale_target(self, target: T, zoom: float) -> T:
        """The target once things appear `zoom` times larger than they did (negative: mirrored, too)."""
        ...

    def loss(self, head: H, outputs: O_contra, targets: T) -> Tensor:
        """A scalar over a batch at the finest stride; 0 where nothing is known."""
        ...

    def postprocess(self, head: H, outputs: O_contra, labels: Labels, previous: Annotations) -> Annotation | None:
        """The annotation of one image.

        Args:
            outputs: `f[c h w]` at the image's size.
            labels: those that the outputs are about.
            previous: what the tasks that precede in `TASKS` found.

        Returns:
            None where an annotation in `needs` is missing.
        """
        ...

    def meter(self) -> Meter:
        """A fresh accumulator of this task's figures."""
        ...


TASKS: Registry[type[Task[Any, Any, Any]]] = Registry(
    "task",
    None,
    {
        "semantic": "datasetdm.decoder.tasks.semantic:SemanticTask",
        "depth": "datasetdm.decoder.tasks.depth:DepthTask",
        "instance": "datasetdm.decoder.tasks.instance:InstanceTask",
        "keypoints": "datasetdm.decoder.tasks.keypoints:KeypointTask",
    },
)
"""Task name -> its class, in the order in which their heads run."""


def make_task(name: str) -> Task[Any, Any, Any]:
    """A task by name."""
    return TASKS.load(name)()


def sample_pixels(outputs: O, targets: T, count: int = 4096) -> tuple[O, T]:
    """The same random pixels of dense outputs f[b c h w] and targets [b h w], as f[b c n 1] and [b n 1].

    A loss over a quarter of the pixels costs a quarter and learns as much (Kirillov et al. 2020, PointRend).
    """
    pixels = next(iter(targets.named().values()))[0].numel()
    chosen = torch.randperm(pixels)[: min(count, pixels)]
    return (
        outputs.map(lambda x: x.flatten(2).index_select(2, chosen.to(x.device))[..., None]),
        targets.map(lambda x: x.flatten(1).index_select(1, chosen.to(x.device))[..., None]),
    )


MIN_SLOPE = 0.05
"""The smallest slope of a calibration: above 0, so that the order of scores never changes."""

TEMPERATURES = tuple(torch.linspace(0.5, 4, 36).tolist())
"""Softmax temperatures that a calibration tries."""


def platt_scaling(logits: Float[Tensor, "n"], right: Float[Tensor, "n"]) -> Float[Tensor, "2"] | None:
    """Slope and shift with which `sigmoid(slope * logit + shift)` is the likeliest probability of being right (Platt 1999,
    with his smoothing for few examples).

    Args:
        right: 0 or 1.

    Returns:
        None if all or none are right, or a logit is not finite. The slope is at least `MIN_SLOPE`.
    """
    yes = float(right.sum())
    no = len(right) - yes
    if not yes or not no or not torch.isfinite(logits).all():
        return None
    target = torch.where(right > 0, (yes + 1) / (yes + 2), 1 / (no + 2))
    free = torch.zeros(2, device=logits.device, requires_grad=True)  # log(slope - MIN_SLOPE), shift
    solver = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits * (MIN_SLOPE + free[0].exp()) + free[1], target)
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    found = torch.stack([MIN_SLOPE + free[0].exp(), free[1]]).detach()
    return found if torch.isfinite(found).all() else None
