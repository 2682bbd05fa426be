"""Tensors and numbers on disk: whole files or none, and no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import PretrainError


@contextmanager
def atomic(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; it takes its name when the block ends well. A kill leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Writes tensors, with `numbers` as JSON in the file's header: one file, so that the two never disagree."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(plain, temporary, {"format": "pt", "numbers": json.dumps(numbers)})


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a file."""
    with _opened(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_numbers(path: Path) -> dict[str, Any]:
    """What `save_tensors` was given as `numbers`."""
    with _opened(path) as file:
        return json.loads((file.metadata() or {}).get("numbers", "{}"))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


@contextmanager
def _opened(path: Path, device: str = "cpu") -> Generator[Any]:
    try:
        with safe_open(path, "pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise PretrainError(f"{path} is no safetensors file: {error}") from error
