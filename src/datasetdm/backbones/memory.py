"""How a pipeline is held and run: precision is `pick_dtype`'s, layout, slices, offload and compilation are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from datasetdm.errors import BackboneError, ConfigError

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunOptions:
    """Speed and memory; none of them changes what a decoder reads, but for rounding.

    Args:
        slices: the VAE takes one image at a time.
        tiles: it takes an image in overlapping tiles. Its activations are then no whole maps, so `specs` leaves them out
            and a decoder must be fitted that way; `slices` and `offload` have no such price.
        offload: parts of the pipeline wait in the CPU's memory until they are needed (CUDA only; nothing to do on CPUs).
        compile: a torch.compile backend ("inductor") for the denoiser while it samples; the features pass stays eager,
            since hooks and compiled graphs do not mix.
        channels_last: memory layout of convolutions; None takes what was measured: yes on CUDA, no on CPUs.
    """

    slices: bool = False
    tiles: bool = False
    offload: bool = False
    compile: str | None = None
    channels_last: bool | None = None

    @classmethod
    def chosen(cls, low_memory: bool = False, compiled: bool = False) -> RunOptions:
        """The command line's two switches."""
        return cls(slices=low_memory, offload=low_memory, compile="inductor" if compiled else None)


def place(pipe: Any, denoiser: str, device: torch.device, options: RunOptions) -> None:
    """Bring a pipeline onto its device in the asked way."""
    if options.slices:
        pipe.vae.enable_slicing()
    if options.tiles:
        pipe.vae.enable_tiling()
    if options.channels_last if options.channels_last is not None else device.type == "cuda":
        for part in (getattr(pipe, denoiser), pipe.vae):
            part.to(memory_format=torch.channels_last)
    if options.offload and device.type == "cuda":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    if options.compile:
        if options.compile not in torch.compiler.list_backends(exclude_tags=()):
            raise ConfigError(
                f"there is no compiler {options.compile!r}",
                expected=f"one of: {', '.join(torch.compiler.list_backends())}",
            )
        getattr(pipe, denoiser).compile(backend=options.compile)


def in_halves(call: Callable[[slice], Result], count: int, start: int = 0) -> list[Result]:
    """`[call(rows)]` of all `count` rows, or the results of their halves (in order) where that takes too much memory.

    Raises:
        BackboneError: not even one row fits.
    """
    try:
        return [call(slice(start, start + count))]
    except torch.OutOfMemoryError as e:
        if count < 2:
            raise BackboneError(
                "not even one image fits into the device's memory",
                where=str(e).splitlines()[0][:160],
                remedy="use --low-memory (parts wait in the CPU's memory), a smaller model, or --device cpu",
            ) from e
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # outside the handler, which would keep the failed call's tensors alive
    half = count // 2
    return in_halves(call, half, start) + in_halves(call, count - half, start + half)
