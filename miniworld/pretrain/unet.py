"""Stage `unet`: the denoiser and its text encoder, on latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from datasetdm.decoder.tensor_files import below, load_tensors
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTokenizer

from . import PretrainError, hardware
from .config import TIMESTEPS, UnetConfig
from .data import Captioned, mirrored
from .latents import load_latents
from .loop import Budget, Run, make_learner
from .models import Conditional, build_tokenizer, encode_captions, signal_shares
from .words import QUIET, WordReader, said, vocabulary
from .work import Work

MAX_SNR = 5.0
"""Where the weight of the noise levels is cut (min-SNR, Hang et al. 2023, arXiv 2303.09556)."""
WORD_WEIGHT, READER_RATE = 0.03, 2e-3
"""Weight of predicting the words of images without caption beside the denoising, and the reader's learning rate."""
LOGIT_SPREAD = 1.2
"""Spread of the logits of the noise levels, where they are sampled from a logit-normal distribution."""


def train_unet(work: Work, data: Captioned, budget: Budget, *, seed: int = 0, compiled: bool = True) -> Run:
    """Trains for a while, from the checkpoint if there is one."""
    config, device = work.preset.unet, hardware.device()
    hardware.set_up(seed)
    latents = load_latents(work, data, half=config.half)
    tokenizer = claim_tokenizer(work, data)
    captions = [*data.captions, *(mirrored(caption) for caption in data.captions), ""]
    tokens = encode_captions(tokenizer, captions).to(device)
    model = Conditional(config, work.preset.vae.latent_channels, tokenizer).to(device)
    model.unet.to(memory_format=hardware.memory_format())
    count = config.batch * (4 if config.half else 1)
    silent = round(config.words * count)
    reader = helper = None
    if silent:
        words = vocabulary(data.captions)
        truth = said(data.captions, words).to(device).repeat(2, 1)
        reader = WordReader(model.unet, tokenizer, words, config.text_width).to(device)
        helper = make_learner(reader, READER_RATE)
    mode = "half" if config.half else "full"
    run = Run("unet", model, config.learning_rate, work, budget, ema=config.ema, seed=seed, mode=mode, helper=helper)
    run.state.data = str(data)
    _speed_up(model, compiled)
    shares = signal_shares().to(device)
    while run.alive():
        batch = sample_batch(latents, tokens, count, silent, config, run.generator())
        total = loss(model, batch.x, batch.tokens, batch.t, batch.noise, shares)
        if reader is None or helper is None:
            run.step(total, count)
            continue
        read, own = reader.losses(model.text, batch.quiet, truth[batch.rows[batch.quiet]])
        run.step(total + WORD_WEIGHT * read, count)
        helper.step(own, READER_RATE)
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


class Batch(NamedTuple):
    """A batch: latents f[b c h w], their rows i64[b], their tokens i64[b l], noise levels i64[b], noise, and
    which are `quiet`, bool[b]: with little noise and no caption."""

    x: Tensor
    rows: Tensor
    tokens: Tensor
    t: Tensor
    noise: Tensor
    quiet: Tensor


def sample_batch(
    latents: Tensor, tokens: Tensor, batch: int, silent: int, config: UnetConfig, generator: torch.Generator
) -> Batch:
    """Random latents with their tokens i64[b l] (the last ones are no caption's); the first `silent` are quiet."""
    device = latents.device
    rows = torch.randint(len(latents), (batch,), device=device, generator=generator)
    t = sample_timesteps(batch, config, generator)
    quiet = torch.arange(batch, device=device) < silent
    dropped = quiet | (torch.rand(batch, device=device, generator=generator) < config.drop_captions)
    x = latents[rows].float()
    noise = torch.randn(x.shape, device=device, generator=generator)
    caption = tokens[torch.where(dropped, len(tokens) - 1, rows)]
    return Batch(x, rows, caption, torch.where(quiet, t * QUIET // TIMESTEPS, t), noise, quiet)


def sample_timesteps(batch: int, config: UnetConfig, generator: torch.Generator) -> Tensor:
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
