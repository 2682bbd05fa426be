"""Tiny pipelines of the real diffusers and transformers classes, with random weights, built without a network."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel

from datasetdm.backbones.hub import BUILTIN

WORDS = "a photo of dog bus red on road sky potted plant cat grass background thing"


def clip_tokenizer() -> Any:
    return transformers.CLIPTokenizer.from_pretrained(BUILTIN["mini"] / "tokenizer")


def clip(kind: str = "CLIPTextModel", width: int = 32) -> Any:
    tokenizer = clip_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id, projection_dim=width,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def t5() -> tuple[Any, Any]:
    """(tokenizer, encoder): whole words, and letters for all others."""
    pieces = [*(f"▁{w}" for w in WORDS.split()), "▁", *string.ascii_letters, *string.digits, *string.punctuation]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(p, -2.0 if len(p) > 1 else -8.0) for p in pieces]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return tokenizer, transformers.T5EncoderModel(config)


def vae(latents: int = 4, **more: Any) -> Any:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 32), layers_per_block=1, latent_channels=latents, norm_num_groups=8, sample_size=64,
        **more,
    )  # fmt: skip


def unet(**more: Any) -> Any:
    return UNet2DConditionModel(**{
        **dict(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32, attention_head_dim=(2, 4), norm_num_groups=8,
        ),
        **more,
    })  # fmt: skip


def schedule(kind: str = "DDIMScheduler", **more: Any) -> Any:
    known = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1)
    if kind == "DDIMScheduler":
        known["clip_sample"] = False
    return getattr(diffusers, kind)(**known, **more)


def sd1(**scheduler: Any) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(), scheduler=schedule(**scheduler),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd2() -> Any:
    """v-prediction with linear projections, as Stable Diffusion 2.x has them."""
    pipe = sd1(prediction_type="v_prediction", timestep_spacing="trailing")
    pipe.register_modules(unet=unet(use_linear_projection=True, sample_size=8))
    return pipe


def lcm() -> Any:
    """A latent consistency model: embedded guidance, few steps."""
    pipe = sd1()
    pipe.register_modules(unet=unet(time_cond_proj_dim=16), scheduler=schedule("LCMScheduler"))
    return pipe


def sdxl() -> Any:
    xl = unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2), use_linear_projection=True, cross_attention_dim=64,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(force_upcast=True), text_encoder=clip(), text_encoder_2=clip("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=xl,
        scheduler=schedule("EulerDiscreteScheduler", timestep_spacing="leading"),
        add_watermarker=False,
    )  # fmt: skip


def sd3() -> Any:
    """Of 3.5's make: normalised queries and keys, and a second attention of the picture alone in the first block."""
    tokenizer, encoder = t5()
    net = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=4, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=24, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    encoder = transformers.T5EncoderModel(type(encoder.config)(**(encoder.config.to_dict() | {"d_model": 64})))
    return diffusers.StableDiffusion3Pipeline(
        transformer=net, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(8, shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip("CLIPTextModelWithProjection"), tokenizer=clip_tokenizer(),
        text_encoder_2=clip("CLIPTextModelWithProjection"), tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoder, tokenizer_3=tokenizer,
    )  # fmt: skip


def flux(guidance_embeds: bool = True) -> Any:
    tokenizer, encoder = t5()
    net = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return diffusers.FluxPipeline(
        transformer=net, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(4, shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=encoder, tokenizer_2=tokenizer,
    )  # fmt: skip


def pixart() -> Any:
    tokenizer, encoder = t5()
    net = diffusers.PixArtTransformer2DModel(
        sample_size=16, num_layers=4, patch_size=2, attention_head_dim=16, num_attention_heads=2, in_channels=4,
        out_channels=8, cross_attention_dim=32, caption_channels=32, use_additional_conditions=False,
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        transformer=net, scheduler=schedule("DPMSolverMultistepScheduler"), vae=vae(), text_encoder=encoder,
        tokenizer=tokenizer,
    )  # fmt: skip


PIPELINES: dict[str, Callable[[], Any]] = {
    "sd1": sd1, "sd2": sd2, "lcm": lcm, "sdxl": sdxl, "sd3": sd3, "flux": flux, "pixart": pixart,
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """Write the tiny pipeline `name`, always the same one."""
    from datasetdm.backbones.quiet import quiet

    torch.manual_seed(0)
    pipe = PIPELINES[name]()
    quiet(lambda: pipe.save_pretrained(folder, safe_serialization=True))
    return folder
