"""From labelled images to annotated ones, by command, on tiny pipelines of several families; LoRA files on top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from commands import run
from datasetdm.backbones import FAMILIES, FeatureConfig, load_backbone, with_loras
from datasetdm.backbones.catalogue import CATALOGUE
from datasetdm.backbones.features import FeatureSpec
from datasetdm.backbones.sampling import Sampling, choose_sampling
from datasetdm.decoder.blocks.pixel import level_widths
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.model import PDecoder, load_pair
from datasetdm.errors import BackboneError, ConfigError, DecoderError
from datasetdm.records import Prompt
from datasetdm.store import Store
from labelled import coco_folder

DOG = [Prompt("a dog", (), 1)]


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_fit_and_generate_by_command(name: str, pipeline_folders: dict[str, Path], tmp_path: Path) -> None:
    data = coco_folder(tmp_path / "own")
    few = ["--steps", "1", "--variants", "1", "--size", "32", "--device", "cpu", "--low-memory"]
    decoder, store = tmp_path / "decoder", tmp_path / "store"
    backbone = ["--backbone", str(pipeline_folders[name]), "--out", str(decoder)]
    assert run("fit", "--data", f"coco:{data}", "--tasks", "semantic", *backbone, *few) == 0
    told = ["--decoder", str(decoder), "--out", str(store), "--steps", "1", "--device", "cpu"]
    assert run("generate", "--prompts", "a dog on grass", "--count", "3", "--batch", "2", *told) == 0
    samples = list(Store(store))
    assert len(samples) == 3 and samples[0].size == (32, 32)
    assert len({s.image.tobytes() for s in samples}) == 3
    for s in samples:
        assert s.labels.names == ("background", "dog", "cat")
        assert s.semantic.ids.shape == (32, 32) and int(s.semantic.ids.max()) < 3
    config = PDecoder.load(decoder).config
    assert config.features == FeatureConfig((50,) if name == "sdxl" else (100,), size=32)


def lora(folder: Path, path: Path, scale: float = 1.0) -> Path:
    """A LoRA of rank 2 on the UNet's cross-attention queries, as diffusers writes them."""
    pipe: Any = load_backbone(str(folder), device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, module in pipe.net.named_modules():
        if name.endswith("attn2.to_q"):
            weights[f"unet.{name}.lora_A.weight"] = torch.randn(2, module.in_features, generator=generator)
            weights[f"unet.{name}.lora_B.weight"] = scale * torch.randn(module.out_features, 2, generator=generator)
    assert weights
    save_file(weights, path, metadata={"format": "pt"})
    return path


def test_a_lora_is_melted_in_and_remembered(tiny_folder: Path, tmp_path: Path) -> None:
    file = lora(tiny_folder, tmp_path / "style.safetensors")
    name = with_loras(str(tiny_folder), [file])
    plain, other = (load_backbone(n, device="cpu", dtype=torch.float32) for n in (str(tiny_folder), name))
    assert other.identity != plain.identity and other.name == f"{tiny_folder.resolve()}+{file.resolve()}"
    key = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
    from safetensors.torch import load_file

    parts = load_file(file)
    change = parts[f"unet.{key}.lora_B.weight"] @ parts[f"unet.{key}.lora_A.weight"]
    before, after = (b.pipe.unet.get_submodule(key).weight for b in (plain, other))  # ty: ignore
    assert torch.allclose(after, before + change, atol=1e-5), "the plain module, its weight changed"
    assert not torch.equal(plain.sample(DOG, 1, 2.0), other.sample(DOG, 1, 2.0))


def test_a_decoder_fitted_with_a_lora_asks_for_it(tiny_folder: Path, tmp_path: Path) -> None:
    file = lora(tiny_folder, tmp_path / "style.safetensors")
    data = coco_folder(tmp_path / "own")
    out = ["--out", str(tmp_path / "d"), "--device", "cpu", "--steps", "1", "--variants", "1", "--tasks", "semantic"]
    assert run("fit", "--data", f"coco:{data}", "--backbone", str(tiny_folder), "--lora", str(file), *out) == 0
    assert json.loads((tmp_path / "d" / "config.json").read_text())["backbone"].endswith("+" + str(file.resolve()))
    decoder, backbone = load_pair(tmp_path / "d", device="cpu")
    assert backbone.identity == decoder.config.identity and backbone.name.endswith(str(file.resolve()))
    with pytest.raises(DecoderError, match="another backbone"):
        load_pair(tmp_path / "d", str(tiny_folder), device="cpu")


def test_loras_that_do_not_fit(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match="no LoRA file"):
        load_backbone(with_loras("mini", [tmp_path / "none.safetensors"]))
    (tmp_path / "old.bin").write_bytes(b"")
    with pytest.raises(BackboneError, match="another format") as caught:
        load_backbone(with_loras("mini", [tmp_path / "old.bin"]))
    assert "safetensors" in str(caught.value)
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    for name in ("other", "damaged"):
        with pytest.raises(BackboneError, match="LoRA cannot be put on StableDiffusionPipeline"):
            load_backbone(with_loras(str(tiny_folder), [tmp_path / f"{name}.safetensors"]), device="cpu")
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="peft") as wanted:
        load_backbone(with_loras(str(tiny_folder), [lora(tiny_folder, tmp_path / "a.safetensors")]), device="cpu")
    assert "datasetdm[lora]" in str(wanted.value)


def test_a_few_step_lora_brings_its_scheduler(tiny_folder: Path, tmp_path: Path) -> None:
    file = lora(tiny_folder, tmp_path / "Hyper-SD15-2steps-lora.safetensors", 0.01)
    backbone: Any = load_backbone(with_loras(str(tiny_folder), [file]), device="cpu", dtype=torch.float32)
    assert (backbone.steps, backbone.guidance) == (2, 1.0)
    assert type(backbone.pipe.scheduler).__name__ == "DDIMScheduler"
    assert backbone.pipe.scheduler.config.timestep_spacing == "trailing"
    assert backbone.sample(DOG, backbone.steps, backbone.guidance).isfinite().all()


BASE = Sampling(25, 7.5)
RULES = {
    "base": (("org/base", (), "PNDMScheduler", BASE, False), (25, 7.5, None)),
    "mini": (("mini", (), "DPMSolverMultistepScheduler", Sampling(20, 6.0), False), (20, 6.0, None)),
    "turbo": (("stabilityai/sd-turbo", (), "EulerDiscreteScheduler", BASE, False), (4, 1.0, None)),
    "a word in a folder above": (("turbo/base", (), "PNDMScheduler", BASE, False), (25, 7.5, None)),
    "a word within a word": (("org/hyperion", (), "PNDMScheduler", BASE, False), (25, 7.5, None)),
    "steps in the name": (("x/SDXL-Lightning-2step", (), "EulerDiscreteScheduler", BASE, False), (2, 1.0, None)),
    "by the scheduler": (("org/fast", (), "LCMScheduler", BASE, False), (4, 1.0, None)),
    "embedded guidance": (("x/LCM_Dreamshaper_v7", (), "LCMScheduler", Sampling(4, 8.0), True), (4, 8.0, None)),
    "FLUX.1-schnell": (("x/FLUX.1-schnell", (), "FlowMatchEulerDiscreteScheduler", Sampling(4, 1.0), False), (4, 1, None)),
    "LoRA": (("org/base", ("sdxl_lightning_8step_lora",), "PNDMScheduler", BASE, False), (8, 1.0, "EulerDiscreteScheduler")),
    "LoRA in its folder": (
        ("org/base", ("models--x--lcm-lora-sdv1-5/snapshots/1a/pytorch_lora_weights",), "PNDMScheduler", BASE, False),
        (4, 1.0, "LCMScheduler"),
    ),
    "LoRA of a style": (("org/base", ("watercolour",), "PNDMScheduler", BASE, False), (25, 7.5, None)),
    "LoRA on FLUX.1-dev": (
        ("x/FLUX.1-dev", ("FLUX.1-Turbo-Alpha-8steps",), "FlowMatchEulerDiscreteScheduler", Sampling(28, 3.5), True),
        (8, 3.5, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(RULES))
def test_steps_and_guidance_follow_rules(case: str) -> None:
    (name, loras, *rest), expected = RULES[case]
    files = [Path("/loras") / f"{f}.safetensors" for f in loras]
    found = choose_sampling(name, files, *rest)
    assert (found.steps, found.guidance, found.scheduler) == expected


def test_the_catalogue_is_what_the_rules_give(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps and guidance in the table are those that the rules give its models; the command shows every row."""
    for m in CATALOGUE:
        assert m.pipeline in FAMILIES and m.licence
        few = "LCM" in m.name
        base = Sampling(4, 8.0) if few else Sampling(m.steps, m.guidance)
        scheduler = "LCMScheduler" if few else "x"
        found = choose_sampling(m.name, [], scheduler, base, m.embedded)
        assert (found.steps, found.guidance) == (m.steps, m.guidance), m.name
    assert {m.pipeline for m in CATALOGUE} == set(FAMILIES)
    assert run("backbones") == 0
    said = capsys.readouterr().out
    assert all(m.name.split("/")[-1][:20] in said for m in CATALOGUE)
    assert "real weights not tested" in " ".join(said.replace("│", " ").split()) and "(gated)" in said


def test_gated_repositories_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2 as httpx
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError

    def gated(*_: object, **__: object) -> None:
        request = httpx.Request("GET", "https://huggingface.co/x")
        raise GatedRepoError(
            "401 Client Error.\nCannot access gated repo", response=httpx.Response(401, request=request)
        )

    monkeypatch.setattr(DiffusionPipeline, "download", gated)
    with pytest.raises(BackboneError, match="licence has not been accepted") as caught:
        load_backbone("black-forest-labs/FLUX.1-dev")
    assert "accept the licence at https://huggingface.co/black-forest-labs/FLUX.1-dev" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)


def test_every_backbone_has_a_wide_level() -> None:
    """The pixel decoder's coarsest level has its full width, also where a transformer has 64 positions a side."""
    specs = [FeatureSpec("a", 8, 16, "hidden"), FeatureSpec("b", 8, 8, "vae"), FeatureSpec("c", 8, 1, "vae")]
    assert level_widths(specs, 1024, 128) == {16: 128, 8: 64}
    assert level_widths([FeatureSpec("m", 8, 32, "hidden"), *specs], 128, 128) == {32: 128, 16: 128, 8: 128, 1: 16}


def test_a_decoder_says_which_maps_it_misses(pipeline_folders: dict[str, Path]) -> None:
    from datasetdm.backbones import RunOptions
    from datasetdm.backbones.canvas import Placement
    from factory import LABELS

    config = FeatureConfig(size=32)
    folder = str(pipeline_folders["sd3"])
    whole = load_backbone(folder, config=config, device="cpu", dtype=torch.float32)
    tiled = load_backbone(folder, config=config, device="cpu", dtype=torch.float32, options=RunOptions(tiles=True))
    decoder = PDecoder.for_backbone(whole, LABELS, ("semantic",), width=32).eval()
    features = tiled.features(tiled.sample(DOG, 1, 1.0), ["a dog"], LABELS.names)
    with pytest.raises(DecoderError, match="gives no vae0") as caught:
        inputs = DecoderInput.from_features(features, ["a dog"], LABELS)
        decoder.annotate(inputs, [Placement.fit((32, 32), (32, 32))])
    assert "tiles" in str(caught.value)
