"""Frozen text-to-image models, all behind one protocol.

A new family of models is one file here and one line in `FAMILIES`; the rest of the software only knows `Backbone`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from datasetdm.errors import BackboneError, ConfigError, unknown_name
from datasetdm.features import Features, FeatureSpec
from datasetdm.types import Prompt

FAMILIES = {"StableDiffusionPipeline": "datasetdm.backbones.unet:UNetBackbone"}
"""Pipeline class named in a folder's `model_index.json` -> the backbone that runs it."""

BUILTIN = {"mini": Path(__file__).parent.parent / "assets" / "mini"}
"""Backbones that come with the package."""


@dataclass(frozen=True)
class FeatureConfig:
    """How features are taken; a P-Decoder remembers it and refuses any other.

    timesteps: noise levels (of the scheduler's training steps) at which the denoiser reads the picture.
    inversion: "renoise" adds fixed noise to the clean latents; "ddim" runs the deterministic sampler backwards.
    inversion_steps: number of DDIM steps of the whole trajectory, of which those up to the timestep are run.
    """

    timesteps: tuple[int, ...] = (50,)
    inversion: Literal["renoise", "ddim"] = "renoise"
    inversion_steps: int = 100


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

    def sample(self, prompts: Sequence[Prompt], steps: int, guidance: float) -> Float[Tensor, "b c h w"]:
        """Latents of new pictures, each from its own prompt's seed, whatever else is in the batch."""
        ...

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """Latents of existing pictures."""
        ...

    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pictures of latents."""
        ...

    def features(self, latents: Float[Tensor, "b c h w"], captions: Sequence[str], labels: Sequence[str]) -> Features:
        """Feature maps of pictures given as latents, with the decoded pictures, which cost nothing extra."""
        ...


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
    name: str = "mini", *, config: FeatureConfig | None = None, device: str = "auto", dtype: torch.dtype | None = None
) -> Backbone:
    """A backbone by built-in name, folder or hub id.

    Raises:
        BackboneError: no such folder or repository, no pipeline, an unsupported kind of pipeline, or damaged weights.
        ConfigError: an unknown name.
    """
    folder = resolve(name)
    kind = read_model_index(folder)["_class_name"]
    if kind not in FAMILIES:
        raise BackboneError(
            f"pipelines of class {kind} are not supported",
            where=folder,
            expected=f"one of: {', '.join(sorted(FAMILIES))}",
        )
    module, cls = FAMILIES[kind].split(":")
    target = pick_device(device)
    factory = getattr(importlib.import_module(module), cls)
    return factory(
        folder, name=name, config=config or FeatureConfig(), device=target, dtype=dtype or pick_dtype(target)
    )


def resolve(name: str) -> Path:
    """The folder of a built-in name, a folder, or a hub id (downloaded into the hub's cache if it is not there)."""
    if name in BUILTIN:
        return BUILTIN[name]
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise BackboneError(
            f"{name} is a file, not a pipeline folder", where=path, expected="a folder with a model_index.json"
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        if "/" in name:
            raise BackboneError(
                f"there is no folder {name}", where=name, expected="a pipeline folder or a hub id org/name"
            )
        raise unknown_name("backbone", name, BUILTIN)
    return _download(name)


def _download(hub_id: str) -> Path:
    from datasetdm.backbones.quiet import quiet

    def download() -> str:
        from diffusers import DiffusionPipeline

        return str(DiffusionPipeline.download(hub_id, use_safetensors=True))

    try:
        return Path(quiet(download))
    except (OSError, ValueError) as e:  # every hub and network error is one of these
        raise BackboneError(
            f"cannot get {hub_id} from the Hugging Face hub: {str(e).strip().splitlines()[0][:160]}",
            where=f"https://huggingface.co/{hub_id}",
            expected="a public repository, or a gated one whose licence you accepted, with safetensors weights",
            remedy="check the id and the network; if it is gated, accept its licence there and set HF_TOKEN",
        ) from e


def read_model_index(folder: Path) -> dict[str, Any]:
    """A pipeline folder's `model_index.json`."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(index, dict) and isinstance(index.get("_class_name"), str):
            return index
        problem = "it names no pipeline class"
    except FileNotFoundError:
        problem = "it has no model_index.json"
    except (OSError, ValueError) as e:
        problem = f"model_index.json cannot be read: {e}"
    raise BackboneError(
        f"not a diffusers pipeline folder: {problem}",
        where=folder,
        expected="a folder written by DiffusionPipeline.save_pretrained",
        remedy="use --backbone mini, such a folder, or a hub id like org/name",
    )


def folder_identity(folder: Path, parts: Sequence[str]) -> str:
    """SHA-256 over the configurations and safetensors files of a pipeline's `parts`."""
    h = hashlib.sha256()
    for part in parts:
        for path in sorted((folder / part).glob("*")):
            if path.suffix in (".safetensors", ".json", ".txt"):
                with path.open("rb") as f:
                    h.update(f"{part}/{path.name}:{hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
    return h.hexdigest()
