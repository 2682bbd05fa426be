"""Tensors on disk, safetensors only, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, contiguous_format

from datasetdm.errors import OutputError
from datasetdm.io.files import atomic


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file or none of it; tensors may lie anywhere.

    Raises:
        OutputError: the place cannot be written. (safetensors reports a full disk as an error of its own.)
    """
    held = {k: v.detach().cpu().clone(memory_format=contiguous_format) for k, v in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(held, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as e:
            full = any(f"os error {n}" in str(e) for n in (27, 28, 122))
            raise OutputError(
                "the disk is full" if full else f"cannot write: {e}",
                where=path,
                remedy="free some space, then run the same command again: it goes on where it stopped",
            ) from e
