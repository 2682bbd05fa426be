"""What every benchmark writes beside its figures, and figures that a stopped run keeps."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasetdm.io.files import write_json

ROOT = Path(__file__).parent.parent
RENDERS = ROOT / "data" / "miniworld"
TEST, VAL = f"mini:{RENDERS / 'test'}", f"mini:{RENDERS / 'val'}"
"""800 renders to test on and 200 to choose by; no fit ever sees either."""

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # for the package miniworld, which is not installed


class Work:
    """A folder with one JSON file for every measured unit: a run that was stopped goes on after the last one.

    settings: what all units depend on; a folder of other settings is refused.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, mark = folder, folder / "settings.json"
        own = json.loads(json.dumps(settings))
        if mark.exists() and json.loads(mark.read_text()) != own:
            raise SystemExit(f"error: {folder} holds figures of other settings; delete it or choose another --work")
        write_json(mark, own)

    def unit(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `measure` gives, measured once."""
        if (found := self.known(name)) is not None:
            return found
        start = time.perf_counter()
        value = json.loads(json.dumps(measure()))
        print(f"{name} ({time.perf_counter() - start:.0f} s): {value}", flush=True)
        write_json(self.folder / f"{name}.json", value)
        return value

    def known(self, name: str) -> dict[str, Any] | None:
        """A unit, if it has been measured."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


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
