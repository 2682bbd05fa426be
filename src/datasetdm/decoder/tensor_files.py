"""Tensors on disk, safetensors only, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from datasetdm.errors import DataError, OutputError
from datasetdm.io.files import atomic, parse_json


def save_tensors(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file or none of it; tensors may lie anywhere.

    Args:
        numbers: JSON-ready values that are kept in the file's header, so that the two never disagree.

    Raises:
        OutputError: the place cannot be written. (safetensors reports a full disk as an error of its own.)
    """
    held = {k: v.detach().cpu().clone(memory_format=contiguous_format) for k, v in tensors.items()}
    metadata = {"format": "pt"} | ({} if numbers is None else {"numbers": json.dumps(dict(numbers))})
    with atomic(path) as temporary:
        try:
            save_file(held, temporary, metadata)
        except SafetensorError as e:
            full = any(f"os error {n}" in str(e) for n in (27, 28, 122))
            raise OutputError(
                "the disk is full" if full else f"cannot write: {e}",
                where=path,
                remedy="free some space, then run the same command again: it goes on where it stopped",
            ) from e


def load_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a file. Raises DataError if it is none of safetensors."""
    with _opened(path, device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_numbers(path: Path) -> dict[str, Any]:
    """What `save_tensors` was given as `numbers`. Raises DataError if it is no safetensors file."""
    with _opened(path, "cpu") as file:
        return parse_json((file.metadata() or {}).get("numbers", "{}"))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def _opened(path: Path, device: str) -> Generator[Any]:
    try:
        with safe_open(path, "pt", device=device) as file:
            yield file
    except SafetensorError as e:
        raise DataError(
            f"this is no safetensors file: {e}", where=path, remedy="delete it, then run the same command again"
        ) from e
