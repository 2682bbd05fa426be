"""Stable Diffusion's family: a UNet with cross-attention between a VAE and a CLIP text encoder.

The pipeline is the stock diffusers one. Features come from one extra pass of the UNet over the clean latents, re-noised
to a small timestep (Baranchuk et al. 2022, arXiv 2112.03126, read a diffusion UNet this way), from cross-attention
between its queries and each label's own words, and from the VAE decoder's activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones import BUILTIN, FeatureConfig, folder_identity
from datasetdm.backbones.quiet import quiet
from datasetdm.errors import BackboneError, ConfigError
from datasetdm.features import Capture, Features, FeatureSpec
from datasetdm.types import Prompt

SENTENCE = "a photo of a {}"
"""What a label's words are read in (Radford et al. 2021 found it to help CLIP)."""

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class UNetBackbone:
    """A `StableDiffusionPipeline` folder. See `Backbone` for what the methods promise."""

    def __init__(self, folder: Path, name: str, config: FeatureConfig, device: torch.device, dtype: torch.dtype):
        self.name = str(folder.resolve()) if name not in BUILTIN and Path(name).is_dir() else name
        self.config, self.device, self.dtype = config, device, dtype
        self.identity = folder_identity(folder, PARTS)
        self.pipe = _load(folder, dtype).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        for part in (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder):
            part.requires_grad_(False).eval()
        train_steps = self.pipe.scheduler.config.num_train_timesteps
        if not config.timesteps or any(not 0 <= t < train_steps for t in config.timesteps):
            raise ConfigError(f"timesteps {config.timesteps}", expected=f"one or more of 0..{train_steps - 1}")
        side = self.pipe.unet.config.sample_size
        self.stride = self.pipe.vae_scale_factor
        self.size = (side * self.stride, side * self.stride)
        self.steps, self.guidance = (20, 4.0) if self.size[0] <= 128 else (25, 7.5)

    # ------------------------------------------------------------------ pictures
    @torch.no_grad()
    def sample(self, prompts: Sequence[Prompt], steps: int, guidance: float) -> Float[Tensor, "b c h w"]:
        seeds = [torch.Generator("cpu").manual_seed(p.seed) for p in prompts]
        return self.pipe(
            [p.text for p in prompts],
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=self.size[0],
            width=self.size[1],
            generator=seeds,
            output_type="latent",
        ).images

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        x = (images * 2 - 1).to(self.device, self.dtype)
        return self.pipe.vae.encode(x).latent_dist.mean * self.pipe.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        y = self.pipe.vae.decode(latents.to(self.device, self.dtype) / self.pipe.vae.config.scaling_factor).sample
        return (y.float() / 2 + 0.5).clamp(0, 1)

    # ------------------------------------------------------------------ features
    @torch.no_grad()
    def features(self, latents: Float[Tensor, "b c h w"], captions: Sequence[str], labels: Sequence[str]) -> Features:
        latents = latents.to(self.device, self.dtype)
        context = self._encode_text(captions)
        tokens, is_label, text = self._label_text(labels)
        maps: dict[str, Tensor] = {}
        for t in self.config.timesteps:
            noisy = self._invert(latents, t, context)
            with Capture(self._hidden_modules, self._attention_modules) as caught:
                self._denoise(noisy, t, context)
            maps |= {f"{name}@{t}": x for name, x in caught.outputs.items()}
            maps |= self._attention_maps(caught.inputs, latents, tokens, is_label, t)
        with Capture(self._vae_modules) as caught:
            images = self.decode(latents)
        return Features(maps | caught.outputs, text, images)

    @cached_property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """Read off one blank picture, so that they are what really arrives."""
        blank = torch.zeros(1, self.pipe.unet.config.in_channels, *(s // self.stride for s in self.size))
        f = self.features(blank, [""], ["thing"])
        return tuple(
            FeatureSpec(n, x.shape[-3], self.size[0] // x.shape[-2], self._kind(n, x)) for n, x in f.maps.items()
        )

    def _kind(self, name: str, x: Tensor) -> Literal["hidden", "attention", "vae"]:
        return "attention" if x.ndim == 5 else "vae" if name in self._vae_modules else "hidden"

    @property
    def text_width(self) -> int:
        return 2 * self.pipe.text_encoder.config.hidden_size

    @cached_property
    def _hidden_modules(self) -> dict[str, nn.Module]:
        """The output of the middle and of every layer of the up blocks (skips bring the down blocks' in)."""
        found: dict[str, nn.Module] = {"mid": self.pipe.unet.mid_block}
        for i, block in enumerate(self.pipe.unet.up_blocks):
            layers = getattr(block, "attentions", None) or block.resnets
            found |= {f"up{i}.{j}": layer for j, layer in enumerate(layers)}
        return found

    @cached_property
    def _attention_modules(self) -> dict[str, nn.Module]:
        return {n: m for n, m in self.pipe.unet.named_modules() if n.endswith(".attn2")}

    @cached_property
    def _vae_modules(self) -> dict[str, nn.Module]:
        return {f"vae{i}": block.resnets[-1] for i, block in enumerate(self.pipe.vae.decoder.up_blocks)}

    def _denoise(self, noisy: Tensor, t: int, context: Tensor) -> Tensor:
        return self.pipe.unet(noisy, t, encoder_hidden_states=context).sample

    def _invert(self, latents: Tensor, t: int, context: Tensor) -> Tensor:
        """Latents at timestep `t`: the same fixed noise for every picture, or DDIM run backwards from clean latents."""
        from diffusers import DDIMInverseScheduler, DDIMScheduler

        config = self.pipe.scheduler.config
        if self.config.inversion == "renoise":
            noise = torch.randn((1, *latents.shape[1:]), generator=torch.Generator("cpu").manual_seed(0))
            noise = noise.to(latents).expand_as(latents)
            steps = torch.full((len(latents),), t, device=latents.device)
            forward: Any = quiet(lambda: DDIMScheduler.from_config(config))
            return forward.add_noise(latents, noise, steps)
        scheduler: Any = quiet(lambda: DDIMInverseScheduler.from_config(config, clip_sample=False))
        scheduler.set_timesteps(self.config.inversion_steps, device=latents.device)
        x = latents
        for now in scheduler.timesteps[scheduler.timesteps <= t]:
            x = scheduler.step(self._denoise(x, int(now), context), int(now), x).prev_sample
        return x

    # ------------------------------------------------------------------ words
    def _encode_text(self, captions: Sequence[str]) -> Float[Tensor, "b n d"]:
        return self.pipe.encode_prompt(list(captions), self.device, 1, False)[0]

    def _label_text(self, labels: Sequence[str]) -> tuple[Tensor, Tensor, Float[Tensor, "l d"]]:
        """Each label in a sentence of its own, so that no label depends on which others are asked for.

        Returns token vectors f[l n d], which of them are the label's own words b[l n], and what the label means f[l 2d]:
        its words as the text encoder takes them in (apart from each other) and as it gives them out (in context), each
        to unit spread. A bare word is no sentence: the mini encoder gives out the same vector for cow, chair and person.
        """
        tokenizer = self.pipe.tokenizer
        start = len(tokenizer(SENTENCE.format("")).input_ids) - 1
        ids = [tokenizer(SENTENCE.format(label), truncation=True).input_ids for label in labels]
        context = self._encode_text([SENTENCE.format(label) for label in labels])
        own = torch.zeros(len(labels), context.shape[1], dtype=torch.bool, device=self.device)
        for row, label_ids in enumerate(ids):
            if len(label_ids) < start + 2:
                raise ConfigError(f"label {labels[row]!r} has no words that the text encoder knows", expected="a word")
            own[row, start : len(label_ids) - 1] = True
        longest = max(map(len, ids))
        context, own = context[:, :longest], own[:, :longest]
        padded = torch.tensor([i + i[-1:] * (longest - len(i)) for i in ids], device=self.device)
        embedded = self.pipe.text_encoder.get_input_embeddings()(padded)
        means = [(x.float() * own[..., None]).sum(1) / own.sum(1, keepdim=True) for x in (embedded, context)]
        return context, own, torch.cat([F.layer_norm(m, m.shape[1:]) for m in means], 1)

    def _attention_maps(
        self, queries: dict[str, Tensor], latents: Tensor, tokens: Tensor, is_label: Tensor, t: int
    ) -> dict[str, Tensor]:
        """Per stride, one channel a layer: the share of a position's attention that goes to the label's own words."""
        h, w = latents.shape[-2:]
        levels: dict[int, list[Tensor]] = {}
        for name, x in queries.items():
            scale = round((h * w / x.shape[1]) ** 0.5)
            shares = label_attention(self._attention_modules[name], x, tokens, is_label)
            levels.setdefault(scale * self.stride, []).append(shares.unflatten(-1, (h // scale, w // scale)))
        return {f"attention{stride}@{t}": torch.stack(maps, 2) for stride, maps in sorted(levels.items())}


def label_attention(
    attn: Any, x: Float[Tensor, "b n c"], tokens: Float[Tensor, "l k d"], is_label: Tensor
) -> Float[Tensor, "b l n"]:
    """Attention of every position to each label's own words, averaged over heads.

    Every label is attended to as a prompt of its own: the softmax runs over that label's start, word and end tokens, so
    its rows sum to one and the share of the words is a probability. `attn` is a diffusers `Attention`.
    """
    heads = attn.heads
    q = attn.to_q(x).unflatten(-1, (heads, -1)).float()
    k = attn.to_k(tokens).unflatten(-1, (heads, -1)).float()
    shares = []
    for rows, own in zip(k.split(8), is_label.split(8), strict=True):  # a few labels at a time bounds the memory
        scores = torch.einsum("bnhd,lkhd->blhnk", q, rows) * attn.scale
        within = torch.arange(own.shape[1], device=own.device) <= own.shape[1] - own.flip(1).int().argmax(1)[:, None]
        p = scores.masked_fill(~within[None, :, None, None], float("-inf")).softmax(-1)
        shares.append((p * own[None, :, None, None]).sum(-1).mean(2))
    return torch.cat(shares, 1)


def _load(folder: Path, dtype: torch.dtype) -> Any:
    """The stock pipeline, safetensors only, without a safety checker (it would blank pictures that have labels)."""

    def load() -> Any:
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=True,
        )

    try:
        return quiet(load)
    except Exception as e:  # diffusers, safetensors and transformers raise many kinds for damaged folders
        raise BackboneError(
            f"the pipeline cannot be loaded: {str(e).strip().splitlines()[0]}",
            where=folder,
            expected="a complete StableDiffusionPipeline folder with safetensors weights",
            remedy="download or save the pipeline again (use_safetensors=True)",
        ) from e
