"""Diffusion transformers: Stable Diffusion 3 and 3.5, FLUX.1 (joint attention) and PixArt-Sigma (cross-attention).

Hidden maps are what a block's attention is given, that is after AdaLN: the raw residual stream has a few channels that are
hundreds of times larger than the others and say nothing of the place (Gan et al. 2025, arXiv 2505.18584). What is left of
them is divided out: each channel by its own size, and clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasetdm.backbones.attention import LabelsBeside, label_attention
from datasetdm.backbones.features import Capture
from datasetdm.backbones.pipeline import Condition, PipelineBackbone
from datasetdm.backbones.sampling import Sampling
from datasetdm.backbones.schedule import invert_flow, invert_variance_preserving
from datasetdm.backbones.words import Segment, Words

DEPTHS = (0.25, 0.5, 0.75)
"""Which blocks are read, as fractions of the depth."""


class DiTBackbone(PipelineBackbone):
    """What diffusion transformers share: blocks by depth, one stride, attention maps as channels of one map."""

    denoiser = "transformer"
    timesteps = (100,)
    reads = "after AdaLN and attention at 1/4, 1/2, 3/4 of the depth"
    stacks: ClassVar[tuple[str, ...]] = ("transformer_blocks",)
    """Names of the lists of blocks, in the order in which they run."""
    attention: ClassVar[str] = "attn"
    """Name of a block's attention that the AdaLN output goes into."""

    @cached_property
    def _blocks(self) -> dict[int, nn.Module]:
        """The blocks that are read, by position."""
        blocks = [block for stack in self.stacks for block in getattr(self.net, stack)]
        chosen = sorted({min(round(share * len(blocks)), len(blocks) - 1) for share in DEPTHS})
        return {i: blocks[i] for i in chosen}

    @property
    def _attentions(self) -> dict[str, nn.Module]:
        return {f"block{i}": block.get_submodule(self.attention) for i, block in self._blocks.items()}

    def _grid(self, latents: Tensor) -> tuple[int, int]:
        """Rows and columns of tokens."""
        patch = self._unit
        return latents.shape[-2] // patch, latents.shape[-1] // patch

    @property
    def _unit(self) -> int:
        """Latent positions per side of one token."""
        return self.net.config.patch_size

    def _hidden(self, inputs: dict[str, Tensor], latents: Tensor) -> dict[str, Tensor]:
        h, w = self._grid(latents)
        return {
            n: normalise_outlier_channels(x[:, -h * w :].mT.unflatten(-1, (h, w))) for n, x in inputs.items()
        }  # the text comes first

    def _maps(self, shares: Sequence[Float[Tensor, "b l n"]], latents: Tensor) -> dict[str, Tensor]:
        grid = self._grid(latents)
        return {f"attention{self.size[0] // grid[0]}": torch.stack([s.unflatten(-1, grid) for s in shares], 2)}


class JointBackbone(DiTBackbone):
    """Text and image in one attention; labels are carried beside them (`LabelsBeside`)."""

    image_first: ClassVar[bool]

    def _invert(self, latents: Tensor, t: int, condition: Condition) -> Tensor:
        return invert_flow(self, latents, t, condition)

    def _read(self, noisy: Tensor, t: int, condition: Condition, words: Words) -> dict[str, Tensor]:
        h, w = self._grid(noisy)
        caption = condition["encoder_hidden_states"]
        beside = LabelsBeside(h * w, caption.shape[1], words, image_first=self.image_first, wanted=self._blocks.keys())
        tokens = beside.tokens.expand(len(caption), -1, -1)
        conditioned = condition | {"encoder_hidden_states": torch.cat([caption, tokens], 1)}
        with Capture({}, self._attentions) as caught, beside:
            self._denoise(noisy, t, conditioned)
        return self._hidden(caught.inputs, noisy) | self._maps([beside.maps[i] for i in self._blocks], noisy)


class SD3Backbone(JointBackbone):
    """A `StableDiffusion3Pipeline` folder (3 and 3.5): two CLIP encoders side by side, then T5 (if it is there)."""

    image_first = True
    long_tokenizer = "tokenizer_3"

    def _default_sampling(self) -> Sampling:
        return Sampling(28, 4.5)

    def _segments(self) -> list[Segment]:
        clip = Segment(self.pipe.tokenizer, self.pipe.text_encoder)
        if self.pipe.text_encoder_3 is None:
            return [clip]
        return [clip, Segment(self.pipe.tokenizer_3, self.pipe.text_encoder_3, self.pipe.tokenizer_max_length)]

    def _condition(self, texts: Sequence[str]) -> Condition:
        context, _, pooled, _ = self.pipe.encode_prompt(
            list(texts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": context, "pooled_projections": pooled}

    def _denoise(self, noisy: Tensor, t: int, condition: Condition) -> Tensor:
        times = torch.full((len(noisy),), float(t), device=noisy.device)
        return self.net.forward(noisy, timestep=times, **condition).sample


class FluxBackbone(JointBackbone):
    """A `FluxPipeline` folder (FLUX.1 dev and schnell): T5 for the sequence, CLIP for one pooled vector."""

    stacks = ("transformer_blocks", "single_transformer_blocks")
    image_first = False
    long_tokenizer = "tokenizer_2"

    def _default_sampling(self) -> Sampling:
        return Sampling(28, 3.5) if self._embeds_guidance() else Sampling(4, 1.0)

    def _embeds_guidance(self) -> bool:
        return self.net.config.guidance_embeds

    def contrasts(self, guidance: float) -> bool:
        return False

    @property
    def _native(self) -> int:
        return self.pipe.default_sample_size

    @property
    def _unit(self) -> int:
        return 2

    def _segments(self) -> list[Segment]:
        return [Segment(self.pipe.tokenizer_2, self.pipe.text_encoder_2)]

    def _condition(self, texts: Sequence[str]) -> Condition:
        context, pooled, _ = self.pipe.encode_prompt(list(texts), None, device=self.device)
        scale = torch.full((len(texts),), self.guidance, device=self.device) if self._embeds_guidance() else None
        return {"encoder_hidden_states": context, "pooled_projections": pooled, "guidance": scale}

    def _denoise(self, noisy: Tensor, t: int, condition: Condition) -> Tensor:
        b, c, h, w = noisy.shape
        text = condition["encoder_hidden_states"]
        pipe: Any = self.pipe
        out = self.net.forward(
            pipe._pack_latents(noisy, b, c, h, w),
            timestep=torch.full((b,), t / 1000, device=noisy.device, dtype=noisy.dtype),
            img_ids=pipe._prepare_latent_image_ids(b, h // 2, w // 2, noisy.device, noisy.dtype),
            txt_ids=text.new_zeros(text.shape[1], 3),
            **condition,
        ).sample
        return self._unpack(out)

    def _unpack(self, latents: Tensor) -> Float[Tensor, "b c h w"]:
        return self.pipe._unpack_latents(latents, *self.size, self.stride)

    def _pack(self, latents: Float[Tensor, "b c h w"]) -> Tensor:
        return self.pipe._pack_latents(latents, *latents.shape)


class PixArtBackbone(DiTBackbone):
    """A `PixArtSigmaPipeline` folder: T5 read by cross-attention, a variance-preserving schedule."""

    attention = "attn1"
    long_tokenizer = "tokenizer"
    timesteps = (50,)
    _call_arguments: ClassVar = {"use_resolution_binning": False, "clean_caption": False}

    def _default_sampling(self) -> Sampling:
        return Sampling(20, 4.5)

    def _segments(self) -> list[Segment]:
        return [Segment(self.pipe.tokenizer, self.pipe.text_encoder)]

    def _condition(self, texts: Sequence[str]) -> Condition:
        context, mask, _, _ = self.pipe.encode_prompt(list(texts), False, device=self.device)
        return {"encoder_hidden_states": context, "encoder_attention_mask": mask}

    def _denoise(self, noisy: Tensor, t: int, condition: Condition) -> Tensor:
        times = torch.full((len(noisy),), t, device=noisy.device)
        none = {"resolution": None, "aspect_ratio": None}
        out = self.net.forward(noisy, timestep=times, added_cond_kwargs=none, **condition).sample
        return out[:, : noisy.shape[1]]  # the rest is the learned variance

    def _at_step_end(self, change: Callable[[int, Tensor], Tensor]) -> dict[str, Any]:
        """Its pipeline has the older kind of callback, whose result is not read: the latents are changed in place."""
        return {"callback": lambda step, _, latents: latents.copy_(change(step, latents))}

    def _invert(self, latents: Tensor, t: int, condition: Condition) -> Tensor:
        return invert_variance_preserving(self, latents, t, condition)

    def _read(self, noisy: Tensor, t: int, condition: Condition, words: Words) -> dict[str, Tensor]:
        cross: dict[str, nn.Module] = {f"cross{i}": block.get_submodule("attn2") for i, block in self._blocks.items()}
        with Capture({}, self._attentions | cross) as caught:
            self._denoise(noisy, t, condition)
        projected = words.with_tokens(self.net.caption_projection(words.tokens))
        shares = [label_attention(attn, caught.inputs.pop(name), projected) for name, attn in cross.items()]
        return self._hidden(caught.inputs, noisy) | self._maps(shares, noisy)


def normalise_outlier_channels(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Every channel over its own root mean square in the image, clipped to 6: outlier channels count like the others."""
    size = x.float().square().mean((-2, -1), keepdim=True).sqrt()
    return (x / size.clamp_min(1e-6)).clamp(-6, 6).to(x.dtype)
