"""The trained parts as a stock `StableDiffusionPipeline` folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasetdm.io.files import write_json
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from . import PretrainError
from .latents import load_scale
from .loop import State
from .models import build_scheduler
from .unet import load_conditional
from .vae import load_vae
from .work import Work

NOTE = "training.json"
"""File in the pipeline folder that says what made the weights."""


def assemble(work: Work) -> StableDiffusionPipeline:
    """A pipeline of the averaged weights in float32."""
    vae, (both, tokenizer) = load_vae(work), load_conditional(work)
    vae.register_to_config(scaling_factor=load_scale(work))
    scheduler: Any = build_scheduler(DPMSolverMultistepScheduler)
    absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=both.text, tokenizer=tokenizer, unet=both.unet, scheduler=scheduler, **absent
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(work: Work, out: Path) -> int:
    """Writes a pipeline folder of fp16 safetensors, and training.json with what made it. -> bytes of weights.

    Files of an earlier export are replaced, others there are left alone.
    """
    if out.is_dir() and any(out.iterdir()) and not (out / "model_index.json").is_file():
        raise PretrainError(f"{out} is neither empty nor a pipeline folder")
    assemble(work).to(torch.float16).save_pretrained(out, safe_serialization=True)
    write_json(out / NOTE, story(work))
    return sum(path.stat().st_size for path in out.glob("*/*.safetensors"))


def story(work: Work) -> dict[str, Any]:
    """What made the weights. steps, samples_seen and seconds are the UNet's; counted_from: see `State`."""
    vae, unet = State.load(work, "vae"), State.load(work, "unet")
    return {
        "preset": work.preset.name,
        "steps": unet.step,
        "samples_seen": unet.samples,
        "seconds": round(unet.seconds, 1),
        "vae_steps": vae.step,
        "vae_samples_seen": vae.samples,
        "vae_seconds": round(vae.seconds, 1),
        "vae_figures": {name: round(value, 2) for name, value in vae.figures.items()},
        "hardware": "; ".join(dict.fromkeys(vae.hardware + unet.hardware)),
        "data": unet.data,
        "counted_from": unet.counted_from,
    }
