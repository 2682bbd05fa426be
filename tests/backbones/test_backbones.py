"""Backbones one by one: loading, UNet internals, the embedded model. What all promise is in test_backbones_contract.py."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from datasetdm import backbones
from datasetdm.backbones import FAMILIES, Backbone, FeatureConfig, load_backbone, pick_device
from datasetdm.backbones.attention import label_attention
from datasetdm.backbones.families.unet import UNetBackbone
from datasetdm.backbones.features import Capture
from datasetdm.backbones.words import Words
from datasetdm.errors import BackboneError, ConfigError
from datasetdm.io.registry import Registry
from datasetdm.records import Prompt

PROMPTS = [Prompt(t, (), s) for t, s in (("a dog", 3), ("a red bus on a road", 5), ("", 7), ("a dog", 9))]
LABELS = ("dog", "potted plant", "sky")


def test_encode_and_decode_meet(mini: Backbone) -> None:
    from datasetdm.readers import read

    image = next(iter(read("mini:test"))).image
    x = torch.from_numpy(image.copy()).movedim(-1, 0)[None].float() / 255
    y = mini.decode(mini.encode(x))
    psnr = -10 * np.log10(float(((x - y) ** 2).mean()))
    assert psnr > 22
    assert mini.decode(mini.encode(y)).shape == x.shape


def test_attention_is_what_diffusers_computes(tiny: UNetBackbone) -> None:
    """Against diffusers' own attention scores; the whole sequence's rows sum to one."""
    attn: Any = next(iter(tiny._attention_modules.values()))
    torch.manual_seed(0)
    x = torch.randn(2, 9, attn.to_q.in_features)
    tokens = torch.randn(3, 5, attn.to_k.in_features)
    own = torch.zeros(3, 5, dtype=torch.bool)
    own[:, 1:4] = True
    words = Words(tokens, torch.ones(3, 5, dtype=torch.bool), own, torch.zeros(3, 1))
    shares = label_attention(attn, x, words)
    for label in range(3):
        q = attn.head_to_batch_dim(attn.to_q(x))
        k = attn.head_to_batch_dim(attn.to_k(tokens[label : label + 1].expand(2, -1, -1)))
        p = attn.get_attention_scores(q, k).unflatten(0, (2, -1))
        assert torch.allclose(p.sum(-1), torch.ones_like(p.sum(-1)))
        assert torch.allclose(shares[:, label], p[..., 1:4].sum(-1).mean(1), atol=1e-5)


def test_padding_gets_no_attention(tiny: UNetBackbone) -> None:
    attn = next(iter(tiny._attention_modules.values()))
    x, tokens = torch.randn(1, 4, attn.to_q.in_features), 50 * torch.randn(1, 7, attn.to_k.in_features)
    used, own = torch.arange(7)[None] < 3, torch.arange(7)[None] == 1
    short = Words(tokens[:, :3], used[:, :3], own[:, :3], torch.zeros(1, 1))
    assert torch.allclose(
        label_attention(attn, x, short), label_attention(attn, x, Words(tokens, used, own, short.text))
    )


def test_renoising_is_the_schedulers_own(tiny: UNetBackbone) -> None:
    latents = torch.randn(2, 4, 16, 16)
    noisy = tiny._invert(latents, 50, tiny._condition(["", ""]))
    ab = DDIMScheduler.from_config(tiny.pipe.scheduler.config).alphas_cumprod[50]
    noise = (noisy - ab.sqrt() * latents) / (1 - ab).sqrt()
    assert torch.allclose(noise[0], noise[1], atol=1e-3)
    assert abs(float(noise.std()) - 1) < 0.05


def test_ddim_inversion_is_undone_by_sampling(mini: UNetBackbone) -> None:
    """Up to timestep 200 and back by the same deterministic steps: the latents return."""
    backbone = UNetBackbone.__new__(UNetBackbone)
    backbone.__dict__ |= mini.__dict__
    backbone.config = FeatureConfig(timesteps=(200,), inversion="ddim", inversion_steps=100)
    from datasetdm.readers import read

    image = next(iter(read("mini:test"))).image
    latents = mini.encode(torch.from_numpy(image.copy()).movedim(-1, 0)[None].float() / 255)
    context = mini._condition(["a blue bottle in a studio"])
    there = backbone._invert(latents, 200, context)
    assert float((there - latents).abs().mean()) > 0.02
    config = dict(mini.pipe.scheduler.config) | {"clip_sample": False, "set_alpha_to_one": True}
    scheduler = DDIMScheduler(**{k: config[k] for k in _DDIM_KEYS})
    scheduler.set_timesteps(100)
    x = there
    for t in scheduler.timesteps[scheduler.timesteps <= 200]:
        x = scheduler.step(mini._denoise(x, int(t), context), int(t), x).prev_sample
    assert float((x - latents).abs().mean()) < 0.35 * float((there - latents).abs().mean())


_DDIM_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "rescale_betas_zero_snr",
    "timestep_spacing", "steps_offset", "clip_sample", "set_alpha_to_one",
)  # fmt: skip


def test_a_silent_module_is_an_error() -> None:
    heard, silent = torch.nn.Identity(), torch.nn.Identity()
    with (
        pytest.raises(BackboneError, match="no feature arrived from silent"),
        Capture({"heard": heard, "silent": silent}),
    ):
        heard(torch.zeros(1))
    assert not heard._forward_hooks


def test_weights_make_the_identity(tiny_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    assert load_backbone(str(copy), device="cpu").identity == load_backbone(str(tiny_folder), device="cpu").identity
    from safetensors.torch import load_file, save_file

    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"] = weights["conv_in.bias"] + 1
    save_file(weights, path, metadata={"format": "pt"})
    assert load_backbone(str(copy), device="cpu").identity != load_backbone(str(tiny_folder), device="cpu").identity


def test_folders_that_are_no_pipeline(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no model_index\.json"):
        load_backbone(str(tmp_path))
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(BackboneError, match="cannot be read"):
        load_backbone(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "MusicPipeline"}))
    with pytest.raises(BackboneError, match="MusicPipeline are not supported") as caught:
        load_backbone(str(tmp_path))
    assert all(name in str(caught.value) for name in FAMILIES)
    with pytest.raises(BackboneError, match="is a file"):
        load_backbone(str(tmp_path / "model_index.json"))
    with pytest.raises(BackboneError, match="no folder"):
        load_backbone(str(tmp_path / "none"))
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(broken))


@pytest.mark.slow
def test_a_package_can_offer_another_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group `datasetdm.backbones`: name = pipeline class, value = what loads it."""
    body = "from datasetdm.backbones import load_backbone\ndef load(*_, **__): return load_backbone('mini', device='cpu')\n"
    (tmp_path / "music.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("MusicPipeline", "music:load", "datasetdm.backbones")
    registry = Registry("pipeline class", "datasetdm.backbones", FAMILIES.table)
    registry.__dict__["_installed"] = {point.name: point}
    monkeypatch.setattr(backbones, "FAMILIES", registry)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "MusicPipeline"}))
    assert load_backbone(str(tmp_path)).name == "mini"


def test_pickled_weights_are_not_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_folder, pickled)
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, pickled / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BackboneError, match="no safetensors files"):
        load_backbone(str(pickled))


def test_names() -> None:
    with pytest.raises(ConfigError, match="unknown backbone 'minni'"):
        load_backbone("minni")
    with pytest.raises(BackboneError, match="cannot get nobody/nothing") as caught:
        load_backbone("nobody/nothing")
    assert "HF_TOKEN" in str(caught.value)
    with pytest.raises(ConfigError, match="device 'gpu7'"):
        pick_device("gpu7")


def test_the_mini_encoder_tells_its_labels_apart(mini: Backbone) -> None:
    """Bare words came out of its text encoder all alike; in a sentence, with their embeddings, they do not."""
    from datasetdm.readers.formats.mini import LABELS as WORLD

    latents = mini.sample(PROMPTS[:1], 1, 1.0)
    text = mini.features(latents, [""], WORLD.names).text.float()
    text = torch.nn.functional.normalize(text - text.mean(0), dim=1)
    alike = text @ text.T - 2 * torch.eye(len(text))
    assert float(alike.max()) < 0.97
