"""From clean latents to a timestep: by the same fixed noise for every image, or by the deterministic sampler backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datasetdm.backbones.quiet import quiet

if TYPE_CHECKING:
    from datasetdm.backbones.pipeline import Condition, PipelineBackbone


def fixed_noise(latents: Tensor) -> Tensor:
    """Standard normal, the same for every image."""
    noise = torch.randn((1, *latents.shape[1:]), generator=torch.Generator("cpu").manual_seed(0))
    return noise.to(latents).expand_as(latents)


def invert_variance_preserving(backbone: PipelineBackbone, latents: Tensor, t: int, condition: Condition) -> Tensor:
    """A schedule of the scheduler's betas (epsilon- and v-prediction): added noise, or DDIM backwards."""
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    config = backbone.pipe.scheduler.config
    if backbone.config.inversion == "renoise":
        steps = torch.full((len(latents),), t, device=latents.device)
        forward: Any = quiet(lambda: DDIMScheduler.from_config(config))
        return forward.add_noise(latents, fixed_noise(latents), steps)
    spacing = config.get("timestep_spacing")
    spacing = spacing if spacing in ("leading", "trailing") else "trailing"  # DDIM's inverse knows no other
    scheduler: Any = quiet(
        lambda: DDIMInverseScheduler.from_config(config, clip_sample=False, timestep_spacing=spacing)
    )
    scheduler.set_timesteps(backbone.config.inversion_steps, device=latents.device)
    x = latents
    for now in scheduler.timesteps[scheduler.timesteps <= t]:
        x = scheduler.step(backbone._denoise(x, int(now), condition), int(now), x).prev_sample
    return x


def invert_flow(backbone: PipelineBackbone, latents: Tensor, t: int, condition: Condition) -> Tensor:
    """A straight path from the image to noise, at t of the training steps: a mixture, or Euler's method backwards.

    The denoiser predicts the velocity `noise - image` (Esser et al. 2024, arXiv 2403.03206). Each step takes the
    velocity at its end, where the sampler would take it, so that sampling with the same steps undoes it approximately.
    """
    end = t / backbone.pipe.scheduler.config.num_train_timesteps
    if backbone.config.inversion == "renoise":
        return (1 - end) * latents + end * fixed_noise(latents)
    count = max(1, round(end * backbone.config.inversion_steps)) if t else 0
    x = latents
    for k in range(1, count + 1):
        x = x + end / count * backbone._denoise(x, round(k / count * t), condition)
    return x
