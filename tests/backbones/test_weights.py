"""Pipeline folders and LoRA files as people have them: variants, shards, odd names, damaged downloads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from datasetdm.backbones import load_backbone, with_loras
from datasetdm.backbones.hub import split_loras
from datasetdm.backbones.weights import only_variant
from datasetdm.errors import BackboneError
from datasetdm.records import Prompt
from hub_server import Held, Hub

DOG = [Prompt("a dog", (), 1)]


def rename(folder: Path, old: str, new: str) -> None:
    for path in folder.rglob(f"*{old}"):
        path.rename(path.with_name(path.name.removesuffix(old) + new))


def shard(folder: Path, name: str = "{stem}-{n:05d}-of-00002.safetensors") -> None:
    """Every file of weights as two, without an index."""
    for path in list(folder.rglob("*.safetensors")):
        tensors = load_file(path)
        keys = sorted(tensors)
        for n in (1, 2):
            part = {k: tensors[k] for k in keys[n - 1 :: 2]}
            save_file(part, path.with_name(name.format(stem=path.stem, n=n)), metadata={"format": "pt"})
        path.unlink()


def mix(folder: Path) -> None:
    rename(folder / "unet", ".safetensors", ".fp16.safetensors")
    rename(folder / "vae", ".safetensors", ".bf16.safetensors")


def beside(folder: Path) -> None:
    """Another variant beside the usual files, which are taken; and one of two shards of a third."""
    for path in list(folder.rglob("*.safetensors")):
        zeros = {k: torch.zeros_like(v) for k, v in load_file(path).items()}
        for name in (".non_ema", ".fp16", ".fp32-00001-of-00002"):
            save_file(zeros, path.with_name(f"{path.stem}{name}.safetensors"), metadata={"format": "pt"})


FOLDERS: dict[str, Callable[[Path], None]] = {
    "fp16": lambda f: rename(f, ".safetensors", ".fp16.safetensors"),
    "several variants": mix,
    "capitals": lambda f: rename(f, ".safetensors", ".SAFETENSORS"),
    "shards without index": shard,
    "shards of a variant": lambda f: shard(f, "{stem}.fp16-{n:05d}-of-00002.safetensors"),
    "shards of a variant, older": lambda f: shard(f, "{stem}-{n:05d}-of-00002.fp16.safetensors"),
    "a variant beside": beside,
}


@pytest.mark.parametrize("case", sorted(FOLDERS))
def test_weights_are_found_by_their_names(case: str, tiny_folder: Path, tiny: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "a c++ pipeline+v2")
    FOLDERS[case](folder)
    before = sorted(p.name for p in folder.rglob("*"))
    backbone: Any = load_backbone(str(folder), device="cpu", dtype=torch.float32)
    for part in ("unet", "vae", "text_encoder"):
        state = getattr(tiny.pipe, part).state_dict()
        for key, value in getattr(backbone.pipe, part).state_dict().items():
            assert torch.equal(value, state[key].to(value.dtype)), (part, key)
    assert backbone.name == str(folder.resolve()) and len(backbone.identity) == 64
    assert sorted(p.name for p in folder.rglob("*")) == before


def test_one_byte_in_any_of_the_files_is_another_backbone(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "p")
    rename(folder, ".safetensors", ".fp16.SAFETENSORS")
    one = load_backbone(str(folder), device="cpu").identity
    path = next(folder.glob("unet/*.SAFETENSORS"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load_backbone(str(folder), device="cpu").identity != one


def lacking(folder: Path) -> None:
    shard(folder)
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()


def pointer(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n"
    )


def cut(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_shard(folder: Path) -> None:
    shard(folder)
    (folder / "vae" / "diffusion_pytorch_model-00001-of-00002.safetensors").write_bytes(b"\x10\0\0\0")


BAD = {
    "a missing shard": (lacking, "1 of the files of unet are missing, first: diffusion_pytorch_model-00002-of-00002"),
    "a Git LFS pointer": (pointer, "is a Git LFS pointer(.|\n)*git lfs pull"),
    "pickles": (lambda f: rename(f, ".safetensors", ".bin"), "no safetensors files(.|\n)*save_pretrained"),
    "half a file": (cut, "cannot be loaded"),
    "half a shard": (cut_shard, "cannot be read(.|\n)*download it again"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_folders_give_one_error_and_leave_nothing(
    case: str, tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, expected = BAD[case]
    folder = shutil.copytree(tiny_folder, tmp_path / "p")
    change(folder)
    capfd.readouterr()
    with pytest.raises(BackboneError) as caught:
        load_backbone(str(folder), device="cpu", dtype=torch.bfloat16)
    assert re.search(expected, str(caught.value))
    assert torch.get_default_dtype() == torch.float32
    assert capfd.readouterr() == ("", "")


def style(folder: Path, path: Path) -> Path:
    """A LoRA on the UNet's cross-attention queries."""
    weights = {}
    for key, value in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        if key.endswith("attn2.to_q.weight"):
            name = f"unet.{key.removesuffix('.weight')}"
            weights[f"{name}.lora_A.weight"] = torch.full((2, value.shape[1]), 0.1)
            weights[f"{name}.lora_B.weight"] = torch.full((value.shape[0], 2), 0.1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize(
    "name", ["add+detail.safetensors", "c++/more+.safetensors", "STYLE.SAFETENSORS", "a b.safetensors"]
)
def test_loras_and_folders_with_any_name(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_folder, tmp_path / "c++" / "pipe+line")
    files = [style(base, tmp_path / name), style(base, tmp_path / "other+.safetensors")]
    full = with_loras(str(base), files)
    assert split_loras(full) == (str(base), tuple(f.resolve() for f in files))
    backbone = load_backbone(full, device="cpu")
    assert backbone.name == full and split_loras(backbone.name)[1] == tuple(f.resolve() for f in files)
    assert split_loras(with_loras("mini", files[:1])) == ("mini", (files[0].resolve(),))
    assert split_loras(with_loras("org/name", files[:1])) == ("org/name", (files[0].resolve(),))
    assert backbone.identity != load_backbone(str(base), device="cpu").identity


def test_a_lora_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path, what in (("c++/add+it.safetensors", "no LoRA file 'add.it.safetensors'"), (".", "is a folder")):
        with pytest.raises(BackboneError, match=what):
            split_loras(with_loras("mini", [tmp_path / path]))
    assert split_loras("a+b/no-folder") == ("a+b/no-folder", ())


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        ((), None),
        (("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"), None),
        (("unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"), "fp16"),
        (("unet/diffusion_pytorch_model.bf16.safetensors", "vae/diffusion_pytorch_model.safetensors"), "bf16"),
        (("text_encoder/model.fp16-00001-of-00002.safetensors", "text_encoder/model.bf16.safetensors"), "fp16"),
        (("v1.fp16.safetensors", "model_index.json"), None),
    ],
)
def test_variants_of_repositories(names: tuple[str, ...], variant: str | None) -> None:
    assert only_variant(names) == variant


def test_a_repository_of_one_variant_is_downloaded(tiny_folder: Path, hub: Hub) -> None:
    """As many are on the hub: the files of half precision only."""
    held = hub.repositories.setdefault("models/me/half", Held())
    for path in sorted(p for p in tiny_folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(tiny_folder))
        held.files[name.replace(".safetensors", ".fp16.safetensors")] = path.read_bytes()
    half, whole = (load_backbone(name, device="cpu") for name in ("me/half", str(tiny_folder)))
    assert half.name == "me/half"
    assert torch.equal(half.sample(DOG, 1, 2.0), whole.sample(DOG, 1, 2.0))
