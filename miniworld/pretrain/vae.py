"""Stage `vae`: images to latents of an eighth of their side, and back."""

from __future__ import annotations

from typing import Any

import torch
from datasetdm.decoder.tensor_files import below, load_tensors
from datasetdm.training.loop import Learner
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from . import hardware
from .config import VaeConfig
from .data import Captioned
from .loop import Budget, Run, make_learner
from .models import PatchCritic, build_vae
from .work import Work

CROP = 64
"""Side of the crops, pixels."""
WHOLE_EVERY = 5
"""One step of so many sees whole images, the others crops: as many pixels of four times as many images."""
HALVED_WEIGHT, KL_WEIGHT, SQUARED_WEIGHT = 0.25, 1e-6, 4.0
CRITIC_RATE, CRITIC_BETAS, CRITIC_RAMP = 2e-4, (0.5, 0.9), 2000


def train_vae(work: Work, data: Captioned, budget: Budget, *, seed: int = 0, compiled: bool = True) -> Run:
    """Trains for a while, from the checkpoint if there is one, and measures the averaged weights.

    With `decoder_only` the encoder stays as it is, and so do all latents and the UNet that knows them.
    """
    config, device = work.preset.vae, hardware.device()
    hardware.set_up(seed)
    held, images = split(data.images().to(device), config.held_out)
    model = build_vae(config).to(device).to(memory_format=hardware.memory_format())
    if config.decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    critic = make_learner(PatchCritic().to(device), CRITIC_RATE, CRITIC_BETAS) if config.gan else None
    mode = "decoder" if config.decoder_only else ""
    run = Run("vae", model, config.learning_rate, work, budget, ema=config.ema, seed=seed, mode=mode, helper=critic)
    run.state.data = str(data)
    if compiled and device.type == "cuda":
        model.encoder.compile()
        model.decoder.compile()
    while run.alive():
        _step(run, images, config)
    run.save()
    run.save(**measure(load_vae(work).to(device), held))
    return run


def load_vae(work: Work) -> AutoencoderKL:
    """The averaged weights."""
    vae = build_vae(work.preset.vae)
    vae.load_state_dict(below(load_tensors(work.finished("vae")), "average."))
    return vae.eval()


def split(images: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    """-> held out for the figures, to learn from. At most a tenth is held out, and at least one."""
    count = max(1, min(held_out, len(images) // 10))
    return images[:count], images[count:] if len(images) > count else images


def normal(images: Tensor) -> Tensor:
    """u8 -> f32 in -1..1."""
    return images.float() / 127.5 - 1


def colours(x: Tensor) -> Tensor:
    """f[b 3 h w] -> f[b 3 h/4 w/4]: brightness and two opponent colours of 4 x 4 blocks, each to about unit spread.

    Squared, they keep red from green: under L1 alone the rarer of the two axes never enters the latents (27 dB, and
    every red bus orange).
    """
    red, green, blue = F.avg_pool2d(x, 4).unbind(1)
    brightness = (red + green + blue) / 3
    return torch.stack((brightness / 0.41, (red - green) / 0.24, (blue - (red + green) / 2) / 0.35), 1)


def distance(y: Tensor, x: Tensor) -> Tensor:
    """How far two batches of images are apart: pixels, edges, 4 x 4 blocks and their colours."""
    edges = F.l1_loss(y.diff(dim=-2), x.diff(dim=-2)) + F.l1_loss(y.diff(dim=-1), x.diff(dim=-1))
    blocks = F.l1_loss(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4))
    return F.l1_loss(y, x) + 0.5 * edges + 0.5 * blocks + 1.5 * F.mse_loss(colours(y), colours(x))


@torch.no_grad()
def measure(vae: AutoencoderKL, held: Tensor) -> dict[str, float]:
    """Mean PSNR in dB of images, and of their 4 x 4 block means, which show a lost colour better."""
    images, blocks = [], []
    for batch in held.split(32):
        x = normal(batch)
        with hardware.autocast():
            y = vae.decode(vae.encode(x).latent_dist.mean).sample.float().clamp(-1, 1)
        images.append(_psnr(y, x))
        blocks.append(_psnr(F.avg_pool2d(y, 4), F.avg_pool2d(x, 4)))
    return {"psnr": float(torch.cat(images).mean()), "block_psnr": float(torch.cat(blocks).mean())}


def _psnr(y: Tensor, x: Tensor) -> Tensor:
    """f[b c h w] in -1..1, twice -> f[b]."""
    return 10 * torch.log10(4 / ((y - x) ** 2).mean((1, 2, 3)))


def _step(run: Run, images: Tensor, config: VaeConfig) -> None:
    generator = run.generator()
    whole = run.state.step % WHOLE_EVERY == 0
    x = _sample(images, config.batch if whole else 4 * config.batch, whole, generator)
    vae: Any = run.learner.module
    with hardware.autocast():
        posterior = vae.encode(x).latent_dist
        z = posterior.mean if config.decoder_only else posterior.sample(generator)
        y = vae.decode(z).sample.float()
    loss = distance(y, x)
    if config.decoder_only:
        loss = loss + SQUARED_WEIGHT * F.mse_loss(y, x)
    else:  # halved latents shall decode to the halved image: easier to diffuse (EQ-VAE, arXiv 2502.09509)
        with hardware.autocast():
            halved = vae.decode(F.avg_pool2d(z, 2)).sample.float()
        kl = posterior.kl().mean() * (1 if whole else 4)
        loss = loss + HALVED_WEIGHT * distance(halved, F.avg_pool2d(x, 2)) + KL_WEIGHT * kl
    taught = run.state.critic_steps - config.critic_lead
    if run.helper and taught > 0:
        with hardware.autocast():
            judgement = run.helper.module(y).float().mean()
        loss = loss - config.gan * min(1.0, taught / CRITIC_RAMP) * judgement
    run.step(loss, len(x))
    if run.helper and run.state.step > config.critic_from:
        _teach(run.helper, x, y.detach())
        run.state.critic_steps += 1


def _sample(images: Tensor, count: int, whole: bool, generator: torch.Generator) -> Tensor:
    """Random images or crops of them, half of them mirrored: f[count 3 h w] in -1..1."""
    chosen = torch.randint(len(images), (count,), device=images.device, generator=generator)
    x = normal(images[chosen] if whole else crops(images, chosen, generator))
    flip = torch.rand(count, 1, 1, 1, device=images.device, generator=generator) < 0.5
    return torch.where(flip, x.flip(-1), x).to(memory_format=hardware.memory_format())


def crops(images: Tensor, chosen: Tensor, generator: torch.Generator, size: int = CROP) -> Tensor:
    """A random window of each chosen image: u8[b 3 size size]."""
    room, device = images.shape[-1] - size + 1, images.device
    corners = (2, len(chosen), 1, 1, 1)
    top, left = torch.randint(room, corners, device=device, generator=generator)
    window = torch.arange(size, device=device)
    channel = torch.arange(3, device=device).view(1, 3, 1, 1)
    return images[chosen.view(-1, 1, 1, 1), channel, top + window.view(1, 1, -1, 1), left + window.view(1, 1, 1, -1)]


def _teach(critic: Learner, real: Tensor, made: Tensor) -> None:
    """One step of the critic's hinge loss."""
    with hardware.autocast():
        right, wrong = critic.module(real).float(), critic.module(made).float()
    critic.step(F.relu(1 - right).mean() + F.relu(1 + wrong).mean(), CRITIC_RATE)
