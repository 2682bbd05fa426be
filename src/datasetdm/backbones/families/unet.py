"""Stable Diffusion 1.x, 2.x and XL: a UNet with cross-attention between a VAE and one or two CLIP text encoders.

Epsilon- and v-prediction, base and distilled models alike: only noising and inversion depend on the noise schedule, which
the scheduler's configuration gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from datasetdm.backbones.attention import label_attention
from datasetdm.backbones.features import Capture
from datasetdm.backbones.pipeline import Condition, PipelineBackbone
from datasetdm.backbones.sampling import Sampling
from datasetdm.backbones.schedule import invert_variance_preserving
from datasetdm.backbones.words import Segment, Words


class UNetBackbone(PipelineBackbone):
    """A `StableDiffusionPipeline` folder."""

    denoiser = "unet"
    timesteps = (50,)
    reads = "middle, up blocks, all cross-attention"

    def _default_sampling(self) -> Sampling:
        if self._embeds_guidance():
            return Sampling(4, 8.0)
        return Sampling(20, 6.0) if self.size[0] <= 128 else Sampling(25, 7.5)

    @property
    def _unit(self) -> int:
        return 2 ** (len(self.net.config.block_out_channels) - 1)

    def _embeds_guidance(self) -> bool:
        return self.net.config.time_cond_proj_dim is not None

    def _segments(self) -> list[Segment]:
        return [Segment(self.pipe.tokenizer, self.pipe.text_encoder)]

    def _condition(self, texts: Sequence[str]) -> Condition:
        context = self.pipe.encode_prompt(list(texts), self.device, 1, False)[0]
        return {"encoder_hidden_states": context, **self._guidance_input(len(texts))}

    def _guidance_input(self, count: int) -> Condition:
        if not self._embeds_guidance():
            return {}
        scale = torch.full((count,), self.guidance - 1)
        width = self.net.config.time_cond_proj_dim
        return {"timestep_cond": self.pipe.get_guidance_scale_embedding(scale, width).to(self.device, self.dtype)}

    def _denoise(self, noisy: Tensor, t: int, condition: Condition) -> Tensor:
        return self.net.forward(noisy, t, **condition).sample

    def _invert(self, latents: Tensor, t: int, condition: Condition) -> Tensor:
        return invert_variance_preserving(self, latents, t, condition)

    def _read(self, noisy: Tensor, t: int, condition: Condition, words: Words) -> dict[str, Tensor]:
        with Capture(self._hidden_modules, self._attention_modules) as caught:
            self._denoise(noisy, t, condition)
        return caught.outputs | self._attention_maps(caught.inputs, noisy, words)

    @cached_property
    def _hidden_modules(self) -> dict[str, nn.Module]:
        """The output of the middle and of every layer of the up blocks (skips bring the down blocks' in)."""
        found: dict[str, nn.Module] = {"mid": self.net.mid_block}
        for i, block in enumerate(self.net.up_blocks):
            layers = getattr(block, "attentions", None) or block.resnets
            found |= {f"up{i}.{j}": layer for j, layer in enumerate(layers)}
        return found

    @cached_property
    def _attention_modules(self) -> dict[str, nn.Module]:
        return {n: m for n, m in self.net.named_modules() if n.endswith(".attn2")}

    def _attention_maps(self, queries: dict[str, Tensor], latents: Tensor, words: Words) -> dict[str, Tensor]:
        """Per stride, one channel per layer: the fraction of a position's attention that goes to the label's own words."""
        h, w = latents.shape[-2:]
        levels: dict[int, list[Tensor]] = {}
        for name, x in queries.items():
            scale = round((h * w / x.shape[1]) ** 0.5)
            shares = label_attention(self._attention_modules[name], x, words)
            levels.setdefault(scale * self.stride, []).append(shares.unflatten(-1, (h // scale, w // scale)))
        return {f"attention{stride}": torch.stack(maps, 2) for stride, maps in sorted(levels.items())}


class SDXLBackbone(UNetBackbone):
    """A `StableDiffusionXLPipeline` folder: two text encoders side by side, pooled text and sizes as further inputs."""

    def _default_sampling(self) -> Sampling:
        return Sampling(4, 8.0) if self._embeds_guidance() else Sampling(30, 5.0)

    def _condition(self, texts: Sequence[str]) -> Condition:
        context, _, pooled, _ = self.pipe.encode_prompt(
            list(texts), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        sizes = [*self.size, 0, 0, *self.size]  # original size, crop, target size
        times = torch.tensor([sizes], dtype=context.dtype, device=self.device).expand(len(texts), -1)
        return {
            "encoder_hidden_states": context,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": times},
            **self._guidance_input(len(texts)),
        }

    def _segments(self) -> list[Segment]:
        if self.pipe.text_encoder is None:  # the refiner has the second one only
            return [Segment(self.pipe.tokenizer_2, self.pipe.text_encoder_2)]
        return super()._segments()
