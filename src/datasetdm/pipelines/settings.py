"""Settings of fitting, generating and editing, with their defaults: Python, recipes and the command line build the same models.

This module imports no torch, so that `--help` answers at once; the descriptions are the command line's help.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from datasetdm.io.settings import Names, NewNames

COMPOSED_CAPTION_DROPOUT = 0.2
"""Default of `FitConfig.caption_dropout` for data without captions: it doubles the mIoU on images without captions and costs
a twentieth of that under captions (docs/LOG.md, 2026-11-25, captions dropped while fitting)."""


class FitConfig(BaseModel):
    """Settings of a fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: Names | None = Field(
        None,
        min_length=1,
        description="Comma-separated: semantic, depth, instance, keypoints; all that the data have labels of, if not given.",
    )
    steps: int = Field(400, ge=1, description="Number of optimiser steps.")
    batch: int = Field(16, ge=1, description="Images per optimiser step.")
    variants: int = Field(6, ge=1, description="Augmented copies of every image; the first is the image itself.")
    held_out: float = Field(
        0.1, ge=0, lt=1, description="Fraction of the images that only measures the fit and calibrates confidences."
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW.")
    width: int = Field(128, ge=32, description="Channels of the decoder's coarse levels.")
    evaluate_every: int = Field(
        50, ge=1, description="Steps between two evaluations, each of which saves a checkpoint."
    )
    caption_dropout: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the copies that are read without their caption, for images without any. Default "
        f"{COMPOSED_CAPTION_DROPOUT} where most images have no caption of their own, only one composed of their labels; else 0.",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the initial weights, the augmentation and the held-out part."
    )


class CheckConfig(BaseModel):
    """Filters that look at what the models see while samples are made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip_agreement: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Ignore pixels on which image and mirror image agree less, for instance 0.5; takes a third longer.",
    )


class GenerateConfig(CheckConfig):
    """Settings of a generation; sample `i` depends on them, on the prompts, on the models and on `i`."""

    seed: int = Field(0, ge=0, description="Another seed gives other images.")
    batch: int = Field(16, ge=1, description="Images per batch; halved where a batch takes too much memory.")
    steps: int | None = Field(None, ge=1, description="Sampling steps; default the model's (few for distilled ones).")
    guidance: float | None = Field(
        None, ge=0, description="Guidance scale; default the model's (1, which is none, for distilled ones)."
    )
    negative: str = Field("", description="What no image shall show.")
    labels: Names | None = Field(None, description="Comma-separated labels to annotate instead of the decoder's own.")


class EditConfig(BaseModel):
    """Settings of edits; an edited sample depends on them, on its parent and on the models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replace: NewNames = Field({}, description="Other things in the place of labels: `dog=cat,cow=horse`.")
    remove: Names = Field((), description="Comma-separated labels whose pixels become surroundings.")
    background: str = Field(
        "", description="Other surroundings of the things in the image, for instance `in the snow`."
    )
    margin: float = Field(0.04, ge=0, le=0.5, description="Regions grow by this fraction of the image's side.")
    room: float = Field(
        0.055,
        ge=0,
        le=0.5,
        description="What is put in the place of a thing may have another shape: the region is the box around the thing, wider "
        "by this fraction of the image's side, without other things; 0 for the thing's own pixels.",
    )
    min_region: float = Field(
        0.005, ge=0, le=1, description="Regions of a smaller fraction of the image are left as they are."
    )
    seed: int = Field(0, ge=0, description="Another seed gives other edits.")
    batch: int = Field(16, ge=1, description="Images per batch; halved where a batch takes too much memory.")
    steps: int | None = Field(None, ge=1, description="Sampling steps; default the model's (few for distilled ones).")
    guidance: float | None = Field(None, ge=0, description="Guidance scale; default the model's.")
    labels: Names | None = Field(None, description="Comma-separated labels to annotate instead of the decoder's own.")

    def edits(self) -> dict[str, Any]:
        """What is edited, JSON-ready."""
        return {
            name: value for name in ("replace", "remove", "background") if (value := self.model_dump(mode="json")[name])
        }

    def digest(self) -> str:
        """Six hexadecimal digits that tell edits of one image apart."""
        return hashlib.sha256(json.dumps([self.edits(), self.seed], sort_keys=True).encode()).hexdigest()[:6]


class TrainConfig(BaseModel):
    """Settings of a training of an ordinary model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: str = Field(
        "segformer",
        description="The kind of model: segformer (semantic), glpn (depth), mask2former (instance), mask2former-semantic, "
        "mask2former-panoptic, vitpose (keypoints).",
    )
    variant: str = Field("tiny", description="Its size: tiny (for a CPU) up to the paper's; an unknown one lists them.")
    size: int | None = Field(
        None, ge=32, description="Side of the square images that the model sees, in pixels; default the variant's."
    )
    encoder: str | None = Field(
        None,
        description="A folder or hub id whose weights the model begins with: of the same architecture, or a pretrained encoder "
        "of its kind alone (a Swin, a Mix Transformer).",
    )
    frozen: bool = Field(False, description="The encoder keeps its weights.")
    steps: int = Field(1000, ge=1, description="Number of optimiser steps.")
    batch: int = Field(16, ge=1, description="Images per optimiser step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of AdamW.")
    warm_up: int = Field(50, ge=1, description="Steps in which the learning rate rises.")
    average_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the averaged weights, which are saved.")
    synthetic_fraction: float = Field(
        0.5, ge=0, le=1, description="With --synthetic: the fraction of every batch that is synthetic."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the synthetic samples (segformer).")
    self_training_confidence: float = Field(
        0.95,
        ge=0,
        le=1,
        description="With --self-training: pixels of which the averaged model is less sure teach nothing.",
    )
    self_training_weight: float = Field(1.0, ge=0, description="With --self-training: weight of that loss.")
    class_weights: bool = Field(
        True, description="Rare labels weigh more: by the inverse root of their pixels (segformer)."
    )
    augment: bool = Field(True, description="Mirror, crop and recolour the images at random.")
    save_every: int = Field(200, ge=1, description="Steps between two checkpoints.")
    onnx: bool = Field(False, description="Also write the model as an ONNX file.")
    tensorboard: bool = Field(
        False, description="Also write loss, learning rate and images per second for TensorBoard."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the initial weights, the order of the samples and the augmentation."
    )


class FilterConfig(BaseModel):
    """Filters of a store's samples; one that is None does not run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area: float | None = Field(
        None, ge=0, le=1, description="Objects that cover a smaller fraction of the image are unsound."
    )
    min_piece: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Objects whose largest connected part is a smaller fraction of them, or that have more than 4, are unsound.",
    )
    min_boundary: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Objects whose outline has a lower mean rank among the image's gradients are unsound; 0.5 is chance.",
    )
    limbs_of: str | None = Field(
        None,
        description="Objects whose limbs are longer or shorter than those of these labelled data, FORMAT:PATH, are unsound.",
    )
    tolerate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Reject samples with a larger fraction of unsound objects, for each of these filters.",
    )
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="Reject samples of a lower mean confidence of their semantic map."
    )
    min_prompted: float | None = Field(
        None, ge=0, le=1, description="Reject samples that show a smaller fraction of the labels in their prompt."
    )
    min_contrast: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Reject images whose brightness has a smaller standard deviation, for instance 0.02.",
    )
    min_unclipped: float | None = Field(
        None, ge=0, le=1, description="Reject images with a smaller fraction of values that are neither 0 nor 255."
    )
    duplicates: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Reject images that are nearer to an earlier one, mirrored or not, for instance 0.02.",
    )
    teacher: str | None = Field(
        None,
        description="A model of yours, to compare the annotations with: a folder of transformers or an ONNX file, of "
        "segmentation, detection or keypoints.",
    )
    teacher_agreement: float = Field(
        0.5,
        ge=0,
        le=1,
        description="With --teacher: reject samples of a lower agreement (mean IoU, F1 of boxes, or OKS).",
    )
    copies_of: str | None = Field(
        None, description="Reject images that are nearer than 0.02 to an image of these labelled data, FORMAT:PATH."
    )
