"""A work folder from a pipeline folder: the weights alone are enough to go on training."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.io.files import write_json
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from . import PretrainError
from .config import PRESETS, Preset, find_preset
from .latents import fingerprint
from .loop import State
from .models import Conditional, build_vae
from .pipeline import NOTE
from .work import Work


def import_pipeline(model: Path, folder: Path, name: str | None = None) -> Work:
    """A new work folder from a pipeline folder's weights alone; name: the preset, by default the one that fits."""
    if folder.is_dir() and any(folder.glob("*.safetensors")):
        raise PretrainError(f"{folder} already holds a training: import into a new folder")
    note = json.loads((model / NOTE).read_text()) if (model / NOTE).is_file() else {}
    vae, text, unet, tokenizer = _load_parts(model)
    preset = _fitting(vae, text, unet, tokenizer, name or note.get("preset"))
    work = Work.open(folder, preset.name)
    shutil.copytree(model / "tokenizer", work.tokenizer, dirs_exist_ok=True)
    write_json(work.scale, {"vae": fingerprint(vae), "scale": vae.config["scaling_factor"]})
    both = {f"text.{k}": v for k, v in text.state_dict().items()} | {
        f"unet.{k}": v for k, v in unet.state_dict().items()
    }
    for stage, tensors in (("vae", vae.state_dict()), ("unet", both)):
        averages = {f"average.{key}": _full(value) for key, value in tensors.items()}
        save_tensors(work.checkpoint(stage), averages, asdict(_state(note, stage)))
    return work


def _load_parts(model: Path) -> tuple[AutoencoderKL, CLIPTextModel, UNet2DConditionModel, CLIPTokenizer]:
    if not (model / "model_index.json").is_file():
        raise PretrainError(f"{model} is no folder of a StableDiffusionPipeline")
    try:
        vae = AutoencoderKL.from_pretrained(model / "vae")
        text = CLIPTextModel.from_pretrained(model / "text_encoder")
        unet = UNet2DConditionModel.from_pretrained(model / "unet")
        return vae, text, unet, CLIPTokenizer.from_pretrained(model / "tokenizer")
    except (OSError, ValueError) as error:
        raise PretrainError(f"{model} cannot be read: {error}") from error


def _fitting(vae: nn.Module, text: nn.Module, unet: nn.Module, tokenizer: CLIPTokenizer, name: str | None) -> Preset:
    """The preset that builds networks of these shapes."""
    given = [_shapes(network) for network in (vae, text, unet)]
    for preset in PRESETS.values() if name is None else (find_preset(name),):
        with torch.device("meta"):
            both = Conditional(preset.unet, preset.vae.latent_channels, tokenizer)
            networks = (build_vae(preset.vae), both.text, both.unet)
        if [_shapes(network) for network in networks] == given:
            return preset
    raise PretrainError(f"the weights do not fit {f'preset {name}' if name else 'any preset'}")


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _state(note: dict[str, Any], stage: str) -> State:
    """What training.json says of a stage; what it does not say is counted from here on."""
    steps = note.get("steps" if stage == "unet" else "vae_steps")
    if not steps:
        return State(counted_from="import")
    names = {"samples": "samples_seen", "seconds": "seconds"}
    counts = {name: note.get(key if stage == "unet" else f"vae_{key}", 0) for name, key in names.items()}
    machines = [name for name in note.get("hardware", "").split("; ") if name]
    state = State(step=steps, **counts, counted_from=note.get("counted_from", "start"), hardware=machines)
    state.data = note.get("data", "")
    state.figures = note.get("vae_figures", {}) if stage == "vae" else {}
    return state
