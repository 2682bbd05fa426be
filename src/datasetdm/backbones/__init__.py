"""Frozen text-to-image models, all behind one protocol.

A new family of models is one file in `families/` and one line in `FAMILIES`, or a package with an entry point
`datasetdm.backbones` whose name is the pipeline class and whose value is a `BackboneFactory`. The rest of the software only
knows `Backbone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from datasetdm.backbones.blending import Kept
from datasetdm.backbones.features import Features, FeatureSpec
from datasetdm.backbones.hub import BUILTIN, is_hub_id, read_model_index, resolve, split_loras, with_loras
from datasetdm.backbones.memory import RunOptions
from datasetdm.errors import BackboneError, ConfigError
from datasetdm.io.registry import Registry
from datasetdm.records import Prompt

__all__ = [
    "BUILTIN", "FAMILIES", "Backbone", "BackboneFactory", "FeatureConfig", "RunOptions", "find_backbone", "is_hub_id",
    "load_backbone", "pick_device", "pick_dtype", "with_loras",
]  # fmt: skip


@dataclass(frozen=True)
class FeatureConfig:
    """How features are taken; a P-Decoder remembers it and refuses any other.

    Args:
        timesteps: noise levels (of the scheduler's training steps) at which the denoiser reads the image; None takes the
            family's own, which a loaded backbone's `config` then holds.
        inversion: "renoise" adds fixed noise to the clean latents; "ddim" runs the deterministic sampler backwards (for flow
            matching: Euler's method).
        inversion_steps: number of such steps of the whole trajectory, of which those up to the timestep are run.
        size: side of the (square) images in pixels; None takes the model's native one.
    """

    timesteps: tuple[int, ...] | None = None
    inversion: Literal["renoise", "ddim"] = "renoise"
    inversion_steps: int = 100
    size: int | None = None


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model. Images are f[b 3 H W] in 0..1; latents are clean, scaled for the denoiser."""

    name: str
    identity: str
    """SHA-256 of the weight files and configurations that features depend on."""
    config: FeatureConfig
    device: torch.device
    size: tuple[int, int]
    """Native (height, width) in pixels."""
    steps: int
    guidance: float
    """Sampling steps and guidance scale to use when none are asked for."""

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """What `features` returns."""
        ...

    @property
    def text_width(self) -> int:
        """Width of `Features.text`."""
        ...

    def sample(
        self,
        prompts: Sequence[Prompt],
        steps: int,
        guidance: float,
        negatives: Sequence[str] = (),
        kept: Kept | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Latents of new images, each from its own prompt, seed and negative prompt, whatever else is in the batch; of existing
        images with new content where `kept` does not say that they stay.

        Raises:
            ConfigError: a negative prompt that would have no effect.
        """
        ...

    def contrasts(self, guidance: float) -> bool:
        """Whether a negative prompt has an effect at this guidance scale."""
        ...

    def kept_texts(self, texts: Sequence[str]) -> list[str]:
        """Of every text the words from its beginning that all text encoders read."""
        ...

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Latents of existing images."""
        ...

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Images of latents."""
        ...

    def features(self, latents: Float[Tensor, "b c h w"], captions: Sequence[str], labels: Sequence[str]) -> Features:
        """Feature maps of images given as latents, with the decoded images, which cost nothing extra."""
        ...


class BackboneFactory(Protocol):
    """What a family's table line names: a class or function that loads one of its models.

    Args:
        folder: a diffusers pipeline folder.
        name: what the user called it.
        loras: LoRA files to put on top.
    """

    def __call__(
        self,
        folder: Path,
        name: str,
        config: FeatureConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        loras: Sequence[Path],
        options: RunOptions | None,
    ) -> Backbone: ...


FAMILIES: Registry[BackboneFactory] = Registry(
    "pipeline class",
    "datasetdm.backbones",
    {
        "StableDiffusionPipeline": "datasetdm.backbones.families.unet:UNetBackbone",
        "StableDiffusionXLPipeline": "datasetdm.backbones.families.unet:SDXLBackbone",
        "StableDiffusion3Pipeline": "datasetdm.backbones.families.dit:SD3Backbone",
        "FluxPipeline": "datasetdm.backbones.families.dit:FluxBackbone",
        "PixArtSigmaPipeline": "datasetdm.backbones.families.dit:PixArtBackbone",
    },
)
"""Pipeline class named in a folder's `model_index.json` -> the family that runs it."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        raise ConfigError(
            f"device {name!r} cannot be used", expected="auto, cpu or cuda", remedy="omit --device"
        ) from e
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load_backbone(
    name: str = "mini",
    *,
    config: FeatureConfig | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    options: RunOptions | None = None,
) -> Backbone:
    """A backbone by built-in name, folder or hub id, with LoRA files on top as in `NAME+FILE.safetensors`.

    Raises:
        BackboneError: no such folder, repository or LoRA, no pipeline, an unsupported kind of one, or damaged weights.
        ConfigError: an unknown name.
    """
    folder, kind, loras = find_backbone(name)
    target = pick_device(device)
    return FAMILIES.load(kind)(
        folder, name, config or FeatureConfig(), target, dtype or pick_dtype(target), loras=loras, options=options
    )


def find_backbone(name: str) -> tuple[Path, str, tuple[Path, ...]]:
    """(folder, pipeline class, LoRA files) of what `load_backbone` would load; a hub id is downloaded.

    Raises:
        BackboneError, ConfigError: as `load_backbone` does, but for damaged weights.
    """
    base, loras = split_loras(name)
    folder = resolve(base)
    kind = read_model_index(folder)["_class_name"]
    if kind not in FAMILIES:
        raise BackboneError(
            f"pipelines of class {kind} are not supported",
            where=folder,
            expected=f"one of: {', '.join(sorted(FAMILIES))}",
        )
    return folder, kind, loras
