"""Ordinary models that learn from data sets: students. A new one is a file here and one line in `STUDENTS`.

A student is a class of `transformers` with the target, the loss and the postprocessing of its task. What it writes is an
ordinary `transformers` folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.tasks import Tensors
from datasetdm.io.registry import Registry
from datasetdm.metrics.meter import Meter
from datasetdm.records import Annotations, Labels, Sample
from datasetdm.training.augment import augment_batch

T = TypeVar("T", bound=Tensors)


@dataclass(frozen=True)
class Variant:
    """A size of a student.

    Args:
        side: of the square images that it sees, in pixels, unless another one is asked for.
        settings: of its `transformers` configuration.
    """

    side: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossOptions:
    """How a student that `weighs_pixels` learns from labels.

    Args:
        class_weights: rare labels weigh more.
        label_smoothing: of the labels of synthetic samples, 0 to 1.
    """

    class_weights: bool = False
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Images, the student's targets, and which samples are synthetic; and more images, whose labels are not known."""

    images: Float[Tensor, "b 3 H W"]
    targets: T
    synthetic: Bool[Tensor, "b"]
    unlabelled: Float[Tensor, "u 3 H W"] | None = None

    def to(self, device: torch.device) -> Batch[T]:
        """The same on another device."""
        unlabelled = None if self.unlabelled is None else self.unlabelled.to(device)
        return Batch(self.images.to(device), self.targets.to(device), self.synthetic.to(device), unlabelled)


class Student(ABC, Generic[T]):
    """One kind of model that learns one task.

    Args:
        labels: the vocabulary that it learns.
        options: of its loss.
    """

    name: ClassVar[str]
    model_type: ClassVar[str]
    """What `transformers` calls its configuration."""
    reads: ClassVar[tuple[str, ...]]
    """The fields of `Sample` that it learns from; samples that lack one teach nothing."""
    encoder: ClassVar[str]
    """The attribute of the model that holds the encoder."""
    encoder_type: ClassVar[str] = ""
    """What `transformers` calls the configuration of pretrained networks of another kind that can be the encoder, if any."""
    outputs: ClassVar[tuple[str, ...]]
    """The outputs of the model that an ONNX file has; none where there can be no such file."""
    smallest_onnx: ClassVar[int] = 1
    """The smallest side of the images of such a file, in pixels."""
    variants: ClassVar[Mapping[str, Variant]]
    self_trains: ClassVar[bool] = False
    """Whether it has `logits` per pixel, and so can learn from images without labels."""

    weighs_pixels: ClassVar[bool] = False
    """Whether its loss is that of single pixels, and so heeds `LossOptions`."""

    def __init__(self, labels: Labels, options: LossOptions | None = None):
        self.labels, self.options = labels, options or LossOptions()

    @property
    def by_label(self) -> bool:
        """Whether what it learns has labels, which depth has not."""
        return any(m.by_label for m in self.meters().values())

    @classmethod
    def labels_of(cls, config: Any) -> Labels:
        """The vocabulary of a model that `train` did not write, from its configuration."""
        return Labels(tuple(config.id2label[i] for i in range(len(config.id2label))))

    def examples(self, sample: Sample) -> list[Sample]:
        """What one sample is to learn from: itself, or its objects; none where an annotation is missing."""
        return [] if any(getattr(sample, name) is None for name in self.reads) else [sample]

    def observe(self, sample: Sample) -> None:
        """Take notice of an example before the model is built, for statistics."""

    def frame(self, side: int) -> tuple[int, int]:
        """(height, width) of the images that the model sees."""
        return side, side

    @abstractmethod
    def classes(self) -> tuple[Any, Any]:
        """The classes of the configuration and of the model."""

    def settings(self) -> dict[str, Any]:
        """What the configuration says whatever the variant."""
        return {"id2label": dict(enumerate(self.labels.names)), "label2id": dict(self.labels.index)}

    def sized(self, settings: Mapping[str, Any], side: int) -> dict[str, Any]:
        """Settings of the configuration (a variant's or a saved model's) for images of this side. Raises ConfigError where
        the model cannot see such images."""
        return dict(settings)

    def around(self, encoder: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a model whose encoder has this configuration, of `encoder_type`."""
        raise NotImplementedError

    @abstractmethod
    def processor(self, side: int) -> Any:
        """The image processor that is saved beside the model."""

    @abstractmethod
    def target(self, sample: Sample, place: Placement) -> T:
        """What the model should find in one example: maps on the canvas of `place`."""

    def rescale_target(self, target: T, zoom: float) -> T:
        """The target of one image once things appear `zoom` times larger (negative: mirrored, too)."""
        return target

    def view(self, sample: Sample, side: int, rng: np.random.Generator) -> tuple[Float[Tensor, "1 3 H W"], T]:
        """The image 0..1 of an example and its target, as the model sees them without augmentation: both sides scaled to
        `side`, as its image processor does."""
        place = Placement(sample.size, (side, side), (side, side))
        return place.image(sample.image), self.target(sample, place)

    def collate(self, targets: Sequence[T]) -> T:
        """The targets of single images as those of a batch."""
        return type(targets[0]).stack(targets)

    def augment(self, batch: Batch[T], seed: int) -> Batch[T]:
        """Random views of a batch."""
        named = batch.targets.named()
        images, moved, zooms = augment_batch(batch.images, list(named.values()), seed)
        targets = type(batch.targets)(**dict(zip(named, moved, strict=True)))
        rows = [self.rescale_target(targets[i], zoom) for i, zoom in enumerate(zooms)]
        return replace(batch, images=images, targets=type(targets).stack(rows))

    def logits(self, model: Any, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b l H W"]:
        """A logit per label and pixel of normalised images, where `self_trains`."""
        raise NotImplementedError

    @abstractmethod
    def loss(self, model: Any, images: Float[Tensor, "b 3 H W"], batch: Batch[T]) -> Float[Tensor, ""]:
        """A scalar; pixels and samples without a label have no part in it. `images`: those of the batch, normalised."""

    @abstractmethod
    def annotate(self, model: Any, processor: Any, samples: Sequence[Sample]) -> list[Annotations]:
        """What the model finds in images of any size."""

    @abstractmethod
    def meters(self) -> dict[str, Meter]:
        """Fresh accumulators of its figures, by name."""


STUDENTS: Registry[type[Student[Any]]] = Registry(
    "student",
    "datasetdm.students",
    {
        "segformer": "datasetdm.downstream.segformer:Segformer",
        "glpn": "datasetdm.downstream.glpn:Glpn",
        "mask2former": "datasetdm.downstream.mask2former:Mask2Former",
        "mask2former-semantic": "datasetdm.downstream.segments:SemanticMask2Former",
        "mask2former-panoptic": "datasetdm.downstream.segments:PanopticMask2Former",
        "vitpose": "datasetdm.downstream.vitpose:Vitpose",
    },
)
"""Student name -> its class."""


def normalise(images: Float[Tensor, "b 3 H W"], processor: Any) -> Float[Tensor, "b 3 H W"]:
    """Images 0..1 with the mean and deviation of an image processor."""
    mean, std = (
        torch.tensor(v, device=images.device).view(3, 1, 1) for v in (processor.image_mean, processor.image_std)
    )
    return (images - mean) / std
