"""What every benchmark writes beside its figures."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def stamp(seeds: list[int]) -> dict[str, Any]:
    """Seeds, commit, machine and versions."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    libraries = ("torch", "diffusers", "transformers", "numpy")
    return {
        "seeds": seeds,
        "commit": git.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "machine": f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in libraries},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return name + (" (avx512_bf16)" if any("avx512_bf16" in line for line in lines) else "")
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
