"""Stage `unet`: the denoiser and its text encoder, on latents."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTokenizer

from . import PretrainError, hardware
from .config import TIMESTEPS, UnetConfig
from .data import Captioned, mirrored
from .files import below, load_tensors
from .latents import load_latents
from .loop import Budget, Learner, Run
from .models import Conditional, build_tokenizer, encode_captions, signal_shares
from .work import Work

MAX_SNR = 5.0
"""Where the weight of the noise levels is cut (min-SNR, Hang et al. 2023, arXiv 2303.09556)."""
LOGIT_SPREAD = 1.2
"""Spread of the logits of the noise levels, where they are drawn log-normally."""


def train_unet(work: Work, data: Captioned, budget: Budget, *, seed: int = 0, compiled: bool = True) -> Run:
    """Trains for a while, from the checkpoint if there is one."""
    config, device = work.preset.unet, hardware.device()
    hardware.prepare(seed)
    latents = load_latents(work, data, half=config.half)
    tokenizer = claim_tokenizer(work, data)
    captions = [*data.captions, *(mirrored(caption) for caption in data.captions), ""]
    tokens = encode_captions(tokenizer, captions).to(device)
    model = Conditional(config, work.preset.vae.latent_channels, tokenizer).to(device)
    model.unet.to(memory_format=hardware.memory_format())
    learner = Learner(model, config.learning_rate)
    run = Run("unet", learner, work, budget, ema=config.ema, seed=seed, mode="half" if config.half else "full")
    run.state.data = str(data)
    _speed_up(model, compiled)
    shares = signal_shares().to(device)
    batch = config.batch * (4 if config.half else 1)
    while run.alive():
        generator = run.generator()
        x, chosen = draw(latents, tokens, batch, config.drop_captions, generator)
        t = draw_timesteps(batch, config, generator)
        noise = torch.randn(x.shape, device=device, generator=generator)
        run.step(loss(model, x, chosen, t, noise, shares), batch)
    run.save()
    return run


def load_conditional(work: Work) -> tuple[Conditional, CLIPTokenizer]:
    """The averaged weights, and the tokenizer they know."""
    tensors = below(load_tensors(work.finished("unet")), "average.")
    tokenizer = CLIPTokenizer.from_pretrained(work.tokenizer)
    model = Conditional(work.preset.unet, work.preset.vae.latent_channels, tokenizer)
    model.load_state_dict(tensors)
    return model.eval(), tokenizer


def claim_tokenizer(work: Work, data: Captioned) -> CLIPTokenizer:
    """The work folder's tokenizer; made of the captions if there is none."""
    if not work.tokenizer.is_dir():
        if work.checkpoint("unet").is_file():
            raise PretrainError(f"{work.tokenizer} is missing: the text encoder knows no other")
        build_tokenizer(data.captions).save_pretrained(work.tokenizer)
    return CLIPTokenizer.from_pretrained(work.tokenizer)


def draw(latents: Tensor, tokens: Tensor, batch: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random latents f32[b c h w] with their tokens i64[b l]; for a share `drop` the last ones: no caption."""
    device = latents.device
    chosen = torch.randint(len(latents), (batch,), device=device, generator=generator)
    dropped = torch.rand(batch, device=device, generator=generator) < drop
    return latents[chosen].float(), tokens[torch.where(dropped, len(tokens) - 1, chosen)]


def draw_timesteps(batch: int, config: UnetConfig, generator: torch.Generator) -> Tensor:
    """-> i64[b] in 0..999."""
    device = generator.device
    if config.timesteps == "uniform":
        return torch.randint(TIMESTEPS, (batch,), device=device, generator=generator)
    logits = LOGIT_SPREAD * torch.randn(batch, device=device, generator=generator)
    return (logits.sigmoid() * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def loss(model: Conditional, x: Tensor, tokens: Tensor, t: Tensor, noise: Tensor, shares: Tensor) -> Tensor:
    """Squared error of the predicted v: half evenly over the noise levels, half with min-SNR weights for v."""
    share = shares[t].view(-1, 1, 1, 1)
    signal, rest = share.sqrt(), (1 - share).sqrt()
    noisy = (signal * x + rest * noise).to(memory_format=hardware.memory_format())
    with hardware.autocast():
        v = model(noisy, t, tokens)
    errors = ((v.float() - (signal * noise - rest * x)) ** 2).mean((1, 2, 3))
    snr = (share / (1 - share).clamp_min(1e-8)).flatten()
    weights = snr.clamp(max=MAX_SNR) / (snr + 1)
    return 0.5 * (weights * errors).mean() / weights.mean() + 0.5 * errors.mean()


def _speed_up(model: Conditional, compiled: bool) -> None:
    if hardware.device().type == "cpu":  # plain attention trains 1.5 times as fast as CPUs' fused kernel
        model.unet.set_attn_processor(AttnProcessor())
    if compiled and hardware.can_compile():
        model.unet.compile()
        model.text.compile()
