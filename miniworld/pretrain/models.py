"""The networks, all of stock diffusers and transformers classes, and the noise schedule."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .config import IMAGE_SIDE, STRIDE, TIMESTEPS, TOKENS, UnetConfig, VaeConfig

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 2048
"""Upper limit; the captions of the mini world need fewer than half."""

Scheduler = TypeVar("Scheduler")


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """f[b 3 h w] <-> f[b c h/8 w/8]."""
    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        sample_size=IMAGE_SIDE,
    )


def build_unet(config: UnetConfig, latent_channels: int) -> UNet2DConditionModel:
    """Cross-attention at every level."""
    levels = len(config.channels)
    return UNet2DConditionModel(
        sample_size=IMAGE_SIDE // STRIDE,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=config.channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=config.text_width,
        attention_head_dim=config.heads,  # despite its name, diffusers reads the number of heads here
        norm_num_groups=config.norm_groups,
    )


def build_text_encoder(config: UnetConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """i64[b tokens] -> f[b tokens width]."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_width // 32,
            max_position_embeddings=TOKENS,
            projection_dim=config.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(captions: Sequence[str]) -> CLIPTokenizer:
    """A CLIP-style lower-case byte-pair encoding of the captions' own words; all other bytes are in it too."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    words = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(learnt["vocab"])
    for letter in sorted(alphabet):
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    merges: Any = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in learnt["merges"]]
    special = {"unk_token": END, "bos_token": START, "eos_token": END, "pad_token": END}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS, **special)


def encode_captions(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """-> i64[n tokens]."""
    settings = {"padding": "max_length", "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
    return tokenizer(list(captions), **settings).input_ids


class Conditional(nn.Module):
    """Text encoder and UNet as one module, so that one optimiser and one average hold both."""

    def __init__(self, config: UnetConfig, latent_channels: int, tokenizer: CLIPTokenizer):
        super().__init__()
        self.text = build_text_encoder(config, tokenizer)
        self.unet = build_unet(config, latent_channels)

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """f[b c h w], i64[b], i64[b tokens] -> v: f[b c h w]."""
        return self.unet(noisy, timesteps, self.text(tokens).last_hidden_state).sample


class PatchCritic(nn.Sequential):
    """Judges overlapping patches (PatchGAN, arXiv 1611.07004): f[b 3 h w] -> f[b 1 ~h/8 ~w/8], positive for real."""

    def __init__(self, width: int = 64):
        channels = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        super().__init__(*layers, spectral_norm(nn.Conv2d(channels[-1], 1, 4, stride=1, padding=1)))


def build_scheduler(kind: Callable[..., Scheduler], **settings: Any) -> Scheduler:
    """v-prediction with zero terminal SNR (Lin et al. 2023, arXiv 2305.08891), as any diffusers scheduler."""
    return kind(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
        **settings,
    )


def signal_shares() -> Tensor:
    """-> f32[1000]: the fraction of the variance at each noise level that is signal (alpha bar); the last is 0."""
    return build_scheduler(DDIMScheduler).alphas_cumprod
