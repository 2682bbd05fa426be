"""Where pipelines come from: built-in names, folders, hub ids, LoRA files on top, and what identifies them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datasetdm.backbones.quiet import quiet
from datasetdm.backbones.weights import SUFFIX, loadable, only_variant
from datasetdm.errors import BackboneError, ConfigError, unknown_name
from datasetdm.io.files import parse_json
from datasetdm.io.hub import CARD

if TYPE_CHECKING:
    import torch

BUILTIN = {"mini": Path(__file__).parent.parent / "assets" / "mini"}
"""Backbones that come with the package."""


def with_loras(name: str, files: Iterable[Path | str]) -> str:
    """The name of a backbone with LoRA files on top: `NAME+FILE+FILE`, so that a decoder remembers them."""
    return "+".join([name, *(str(Path(f).resolve()) for f in files)])


def split_loras(name: str) -> tuple[str, tuple[Path, ...]]:
    """(name, LoRA files) of such a name. A plus sign may also be part of a path: the files that are there decide.

    Raises:
        BackboneError: a LoRA file that is not there or is no safetensors file.
    """
    if "+" not in name or Path(name).is_dir():
        return name, ()
    readings = [(name[: m.start()], _lora_files(name[m.end() :])) for m in re.finditer(r"\+", name)]
    known = [r for r in readings if r[0] in BUILTIN or Path(r[0]).is_dir() or is_hub_id(r[0])]
    for base, files in known + readings:
        if all(f.suffix.lower() == SUFFIX and f.is_file() for f in files):
            return base, files
    for file in known[0][1] if known else ():
        if file.is_dir():
            problem, remedy = f"{file.name or file} is a folder", f"give the {SUFFIX} file in it with --lora"
        else:
            problem = "a LoRA of another format" if file.is_file() else f"there is no LoRA file {file.name or name!r}"
            remedy = "give its path with --lora, or convert it to safetensors"
        if not file.is_file() or file.suffix.lower() != SUFFIX:
            raise BackboneError(problem, where=file, expected=f"a {SUFFIX} file", remedy=remedy)
    return name, ()


def _lora_files(names: str) -> tuple[Path, ...]:
    return tuple(map(Path, re.split(r"(?<=\.safetensors)\+", names, flags=re.IGNORECASE)))


def shared_name(name: str) -> str:
    """What may be said elsewhere of a backbone's name: of folders and LoRA files on this machine their own names only."""
    return "+".join(Path(part).name if Path(part).is_absolute() else part for part in re.split(r"\+(?=/)", name))


def is_hub_id(name: str) -> bool:
    """Whether it can only be a repository's name."""
    return not Path(name).exists() and re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) is not None


def resolve(name: str) -> Path:
    """The folder of a built-in name, a folder, or a hub id (downloaded into the hub's cache if it is not there)."""
    if name in BUILTIN:
        return BUILTIN[name]
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise BackboneError(
            f"{name} is a file, not a pipeline folder", where=path, expected="a folder with a model_index.json"
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        if "/" in name:
            raise BackboneError(
                f"there is no folder {name}", where=name, expected="a pipeline folder or a hub id org/name"
            )
        raise unknown_name("backbone", name, BUILTIN)
    return _download(name)


def _download(hub_id: str) -> Path:
    def download() -> str:
        from diffusers import DiffusionPipeline
        from huggingface_hub import HfApi, hf_hub_download

        names: list[str] = []
        with contextlib.suppress(OSError, ValueError):  # without a network the cache answers below
            names = HfApi().list_repo_files(hub_id)
        folder = str(DiffusionPipeline.download(hub_id, use_safetensors=True, variant=only_variant(names)))
        with contextlib.suppress(OSError, ValueError):  # the card, which names the licence, may be missing
            hf_hub_download(hub_id, CARD)
        return folder

    try:
        return Path(quiet(download))
    except (OSError, ValueError) as e:  # every hub and network error is one of these
        gated = any(type(x).__name__ == "GatedRepoError" for x in (e, e.__cause__, e.__context__))
        reason = "its licence has not been accepted" if gated else str(e).strip().splitlines()[0][:160]
        raise BackboneError(
            f"cannot get {hub_id} from the Hugging Face hub: {reason}",
            where=f"https://huggingface.co/{hub_id}",
            expected="a public repository, or a gated one whose licence you accepted, with safetensors weights",
            remedy=f"accept the licence at https://huggingface.co/{hub_id}, then set HF_TOKEN to a token of that account"
            if gated
            else "check the id and the network, or give a folder with the pipeline; if it is gated, accept its licence "
            "there and set HF_TOKEN",
        ) from e


def read_model_index(folder: Path) -> dict[str, Any]:
    """A pipeline folder's `model_index.json`."""
    path = folder / "model_index.json"
    try:
        index = parse_json(path.read_bytes())
        if isinstance(index, dict) and isinstance(index.get("_class_name"), str):
            return index
        problem = "it names no pipeline class"
    except FileNotFoundError:
        problem = "it has no model_index.json"
    except (OSError, ValueError) as e:
        problem = f"model_index.json cannot be read: {e}"
    raise BackboneError(
        f"not a diffusers pipeline folder: {problem}",
        where=folder,
        expected="a folder written by DiffusionPipeline.save_pretrained",
        remedy="use --backbone mini, such a folder, or a hub id like org/name",
    )


def read_licence(folder: Path) -> str:
    """The licence that the card of a pipeline's folder names; `unknown` if there is none."""
    try:
        front = (folder / CARD).read_text(encoding="utf-8").split("---")[1]
        found = yaml.safe_load(front)
        return str(found.get("license_name") or found["license"])
    except (OSError, ValueError, IndexError, KeyError, AttributeError, yaml.YAMLError):
        return "unknown"


def load_pipeline(folder: Path, dtype: torch.dtype, loras: Iterable[Path] = ()) -> Any:
    """The stock pipeline, safetensors only, with LoRA files melted into its weights, one after the other.

    It is loaded without a safety checker, which would blank images that have labels.
    """
    import torch

    index = read_model_index(folder)
    without: dict[str, Any] = {name: None for name, part in index.items() if name in UNUSED or part == [None, None]}
    if "requires_safety_checker" in index:
        without["requires_safety_checker"] = False

    parts = [p for p, v in index.items() if p not in without and isinstance(v, list)]

    def load() -> Any:
        import diffusers

        with loadable(folder, parts) as place:
            return getattr(diffusers, index["_class_name"]).from_pretrained(
                place, torch_dtype=dtype, use_safetensors=True, local_files_only=True, **without
            )

    before = torch.get_default_dtype()
    try:
        pipe = quiet(load)
    except BackboneError:
        raise
    except Exception as e:  # diffusers, safetensors and transformers raise many kinds for damaged folders
        raise BackboneError(
            f"the pipeline cannot be loaded: {str(e).strip().splitlines()[0]}",
            where=folder,
            expected=f"a complete {index['_class_name']} folder with safetensors weights",
            remedy="download or save the pipeline again (use_safetensors=True)",
        ) from e
    finally:
        torch.set_default_dtype(before)  # transformers leaves its own behind when it fails
    for file in loras:
        _melt(pipe, file)
    return pipe


def _melt(pipe: Any, file: Path) -> None:
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "LoRA files need the library peft",
            where=file,
            remedy="pip install 'datasetdm[lora]' (or: pip install peft)",
        )

    def melt() -> bool:
        with tempfile.TemporaryDirectory() as folder:  # diffusers knows suffixes in small letters only
            (Path(folder) / f"lora{SUFFIX}").symlink_to(file.resolve())
            pipe.load_lora_weights(folder, weight_name=f"lora{SUFFIX}", use_safetensors=True, adapter_name="melted")
        held = [part for part, names in pipe.get_list_adapters().items() if "melted" in names]
        pipe.fuse_lora(components=held, adapter_names=["melted"])
        pipe.unload_lora_weights()
        return bool(held)

    try:
        problem = None if quiet(melt) else "none of its weights belongs to this pipeline"
    except Exception as e:  # as for pipelines
        problem = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
    if problem:
        raise BackboneError(
            f"the LoRA cannot be put on {pipe.__class__.__name__}: {problem}",
            where=file,
            expected="a LoRA of the same base model",
            remedy="choose the base model that its page names",
        )


UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a pipeline that are never loaded."""


def folder_identity(folder: Path, parts: Iterable[str], loras: Iterable[Path] = ()) -> str:
    """SHA-256 over the configurations and safetensors files of a pipeline's `parts`, and over the LoRA files on top."""
    h = hashlib.sha256()
    for part in parts:
        for path in sorted((folder / part).glob("*")):
            if path.suffix.lower() in (SUFFIX, ".json", ".txt"):
                with path.open("rb") as f:
                    h.update(f"{part}/{path.name}:{hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
    for path in loras:
        with path.open("rb") as f:
            h.update(f"lora:{hashlib.file_digest(f, 'sha256').hexdigest()}\n".encode())
    return h.hexdigest()
