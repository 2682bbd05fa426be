"""Sampling that leaves parts of existing images as they are: masked latent blending.

At the end of every step the positions that stay are set to the existing latents, noised to the level of the next step (Avrahami
et al. 2022, arXiv 2206.02779). The stock pipeline samples; its scheduler noises, so every family and schedule is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasetdm.records import Prompt


@dataclass(frozen=True)
class Kept:
    """What sampling leaves as it is.

    Args:
        latents: of the existing images.
        where: positions that stay.
    """

    latents: Float[Tensor, "b c h w"]
    where: Bool[Tensor, "b 1 h w"]

    def __getitem__(self, rows: Sequence[int]) -> Kept:
        """Some of the images."""
        return Kept(self.latents[list(rows)], self.where[list(rows)])


class Blend:
    """What is done at the end of every sampling step.

    Args:
        kept: what stays.
        prompts: whose seeds the noise comes from, the same that sampling begins with.
        scheduler: of the pipeline that samples.
    """

    def __init__(self, kept: Kept, prompts: Sequence[Prompt], scheduler: Any):
        self.kept, self.scheduler = kept, scheduler
        shape = (1, *kept.latents.shape[1:])
        noise = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(p.seed)) for p in prompts]
        self.noise = torch.cat(noise).to(kept.latents)

    def __call__(self, step: int, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The latents after step number `step`, what stays in its place."""
        clean = self.kept.latents.to(latents)
        return torch.where(self.kept.where.to(latents.device), self._noised(clean, step + 1), latents)

    def _noised(self, clean: Tensor, step: int) -> Tensor:
        times = self.scheduler.timesteps
        if step >= len(times):
            return clean
        noise, now = self.noise.to(clean), times[step].expand(len(clean))
        if hasattr(self.scheduler, "scale_noise"):  # flow matching
            return self.scheduler.scale_noise(clean, now, noise)
        return self.scheduler.add_noise(clean, noise, now)
