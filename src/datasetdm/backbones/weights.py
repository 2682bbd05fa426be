"""The weight files of a pipeline folder, found by their names.

Folders that were saved or downloaded with `variant="fp16"`, or file by file, hold `model.fp16.safetensors`, or the shards
`model-00001-of-00002.safetensors` without their index. `loadable` gives a folder in which all have the names that diffusers
looks for.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from datasetdm.errors import BackboneError

SUFFIX = ".safetensors"

_WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(?:\.(\w+))?(?:-(\d+)-of-(\d+))?(?:\.(\w+))?\.safetensors", re.IGNORECASE
)
"""(stem, variant, number of the shard, shards in all, variant as older versions place it)."""

PREFERRED = ("", "fp16", "bf16", "fp32")
"""Variants in the order in which they are taken, if several are whole; then all others by name."""

POINTER = b"version https://git-lfs"


@contextmanager
def loadable(folder: Path, parts: Iterable[str]) -> Generator[Path]:
    """The pipeline folder itself, or for the duration of the block one with links to its files under their usual names.

    Raises:
        BackboneError: a part without safetensors weights, with missing shards, or with Git LFS pointers in place of files.
    """
    chosen = {part: files for part in parts if (files := _choose(folder / part))}
    if all(_usual(folder / part, files) for part, files in chosen.items()):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        mirror = Path(temporary)
        for path in folder.iterdir():
            if path.name not in chosen:
                (mirror / path.name).symlink_to(path.resolve())
        for part, files in chosen.items():
            (mirror / part).mkdir()
            _link(folder / part, files, mirror / part)
        yield mirror


def only_variant(names: Iterable[str]) -> str | None:
    """The variant that must be asked for to get the weights of a repository with these files; None if the usual files are there.

    That is the preferred one of those in which a part has its weights that has no usual ones.
    """
    found: dict[str, set[str]] = {}
    for name in names:
        part, _, file = name.rpartition("/")
        if part and (match := _WEIGHTS.fullmatch(file)):
            found.setdefault(part, set()).add((match[2] or match[5] or "").lower())
    lacking = [variants for variants in found.values() if "" not in variants]
    return _preferred(set.intersection(*lacking) or set.union(*lacking))[0] if lacking else None


def _preferred(variants: Iterable[str]) -> list[str]:
    return sorted(variants, key=lambda v: (PREFERRED.index(v) if v in PREFERRED else len(PREFERRED), v))


def _choose(folder: Path) -> Mapping[str, Path]:
    """The weights of one part: usual name -> file; empty for a part without any (a scheduler, a tokenizer)."""
    found: dict[str, dict[str, Path]] = {}
    missing: list[str] = []
    paths = sorted(folder.glob("*")) if folder.is_dir() else []
    matches = [(m, p) for p in paths if (m := _WEIGHTS.fullmatch(p.name))]
    for match, path in matches:
        stem, early, number, count, late = match.groups()
        shard = f"-{number}-of-{count}" if number else ""
        found.setdefault((early or late or "").lower(), {})[f"{stem.lower()}{shard}{SUFFIX}"] = path
    for variant in _preferred(found):
        if single := {n: p for n, p in found[variant].items() if "-of-" not in n}:
            return _checked(single)
        names = _all_shards(next(iter(found[variant])))
        if not (lacking := [n for n in names if n not in found[variant]]):
            return _checked(found[variant])
        missing = missing or lacking
    if missing:
        raise BackboneError(
            f"{len(missing)} of the files of {folder.name} are missing, first: {missing[0]}",
            where=folder,
            expected="all shards",
            remedy="download the folder again",
        )
    if any(p.suffix in (".bin", ".ckpt", ".pt", ".msgpack") for p in paths):
        raise BackboneError(
            f"the weights of {folder.name} are no safetensors files",
            where=folder,
            expected=f"*{SUFFIX}",
            remedy="download the safetensors files, or convert: load the pipeline and save_pretrained(FOLDER)",
        )
    return {}


def _checked(files: Mapping[str, Path]) -> Mapping[str, Path]:
    for path in files.values():
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise BackboneError(
                    f"{path.name} is a Git LFS pointer, not the file itself", where=path, remedy="git lfs pull"
                )
    return files


def _all_shards(name: str) -> list[str]:
    """The names of all shards, from that of one."""
    stem, number, count = re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.safetensors", name).groups()  # ty: ignore
    return [f"{stem}-{n:0{len(number)}d}-of-{count}{SUFFIX}" for n in range(1, int(count) + 1)]


def _usual(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether all files have their usual names, and shards their index."""
    names = [p.name for p in files.values()]
    return names == [*files] and (len(files) == 1 or (folder / _index(names)).is_file())


def _index(names: Sequence[str]) -> str:
    return f"{names[0].split('-')[0]}{SUFFIX}.index.json"


def _link(folder: Path, files: Mapping[str, Path], mirror: Path) -> None:
    """Link one part's other files as they are, and its weights under their usual names, shards with a new index."""
    for path in folder.iterdir():
        if not _WEIGHTS.fullmatch(path.name) and ".index." not in path.name:
            (mirror / path.name).symlink_to(path.resolve())
    for name, path in files.items():
        (mirror / name).symlink_to(path.resolve())
    if len(files) > 1:
        places = {key: name for name, path in files.items() for key in _keys(path)}
        index = {"metadata": {"total_size": sum(p.stat().st_size for p in files.values())}, "weight_map": places}
        (mirror / _index([*files])).write_text(json.dumps(index), encoding="utf-8")


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as e:
        raise BackboneError(
            f"the file cannot be read: {e}", where=path, expected="a whole safetensors file", remedy="download it again"
        ) from e
