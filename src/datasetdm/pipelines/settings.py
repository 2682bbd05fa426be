"""Settings of fitting and generating, with their defaults: Python, recipes and the command line build the same models.

This module imports no torch, so that `--help` answers at once; the descriptions are the command line's help.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from datasetdm.io.settings import Names

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


class GenerateConfig(BaseModel):
    """Settings of a generation; sample `i` depends on them, on the prompts, on the models and on `i`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0, description="Another seed gives other images.")
    batch: int = Field(16, ge=1, description="Images per batch; halved where a batch takes too much memory.")
    steps: int | None = Field(None, ge=1, description="Sampling steps; default the model's (few for distilled ones).")
    guidance: float | None = Field(
        None, ge=0, description="Guidance scale; default the model's (1, which is none, for distilled ones)."
    )
    negative: str = Field("", description="What no image shall show.")
    labels: Names | None = Field(None, description="Comma-separated labels to annotate instead of the decoder's own.")
