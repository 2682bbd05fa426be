"""The machine: where to compute, in which precision, and what to call it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import torch


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def memory_format() -> torch.memory_format:
    """Channels last is faster on GPUs only."""
    return torch.channels_last if device().type == "cuda" else torch.contiguous_format


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 is multiplied in hardware: it halves the time where it is, and costs time where it is not."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def autocast() -> torch.autocast:
    """bfloat16 where it pays."""
    return torch.autocast(device().type, torch.bfloat16, enabled=multiplies_bfloat16())


def can_compile() -> bool:
    """Whether `torch.compile` finds what it needs: Triton on GPUs, a compiler of C++ on CPUs."""
    return device().type == "cuda" or shutil.which("g++") is not None


def set_up(seed: int) -> None:
    """Seeds the first weights; fast matrix products and convolutions on GPUs."""
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def describe() -> str:
    """For instance `AMD EPYC, 2 threads, bfloat16`."""
    precision = "bfloat16" if multiplies_bfloat16() else "float32"
    if device().type == "cuda":
        return f"{torch.cuda.get_device_name()}, {precision}"
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}, {precision}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
