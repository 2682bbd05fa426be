"""What is kept is noised as the sampler's own latents are."""

from __future__ import annotations

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from datasetdm.backbones.blending import Blend, Kept
from datasetdm.records import Prompt


@pytest.mark.parametrize("step", [0, 3])
def test_a_flow_is_a_mixture_and_a_diffusion_keeps_its_variance(step: int) -> None:
    clean = torch.full((2, 1, 2, 2), 5.0)
    kept = Kept(clean, torch.ones(2, 1, 2, 2, dtype=torch.bool))
    prompts = [Prompt("a", (), 1), Prompt("b", (), 2)]
    flow = FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(8)
    blend = Blend(kept, prompts, flow)
    assert flow.sigmas is not None
    sigma = flow.sigmas[step + 1]
    assert torch.allclose(blend(step, clean), (1 - sigma) * clean + sigma * blend.noise)
    diffusion = DDIMScheduler()
    diffusion.set_timesteps(8)
    blend = Blend(kept, prompts, diffusion)
    a = diffusion.alphas_cumprod[int(diffusion.timesteps[step + 1])]
    assert torch.allclose(blend(step, clean), a.sqrt() * clean + (1 - a).sqrt() * blend.noise)
    assert torch.equal(blend(7, torch.zeros_like(clean)), clean), "the last step leaves no noise"
    assert torch.equal(blend.noise[1], Blend(kept[[1]], prompts[1:], diffusion).noise[0]), "noise follows from the seed"
