"""Depth beside pictures: 16-bit PNG in KITTI's convention, or floats as NPY or OpenEXR.

    depth-kitti    `image/NAME.png`, `depth/NAME.png`: 1/256 m a step (KITTI's depth benchmark); splits are folders above
    depth-npy      `images/NAME.png`, `depth/NAME.npy`: float32
    depth-exr      `images/NAME.png`, `depth/NAME.exr`: float32, channel Z; needs the extra `exr`

0 is unknown in all of them, and so is what lies beyond the 16 bits (256 m). NPY and EXR hold metres or relative depth, one of
them; `depth.json` says which. A sample without depth is a picture alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from datasetdm.errors import ConfigError, DataError
from datasetdm.exporters.target import Target
from datasetdm.io.codecs import encode_png
from datasetdm.io.files import write_bytes, write_json, writing
from datasetdm.records import DepthMap, Sample

KITTI, NYU = 256, 1000
"""Steps a metre: KITTI's depth benchmark, and NYU Depth v2 as it is commonly shared (millimetres)."""


def export_kitti(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Depth as PNG of 16 bits."""
    for sample in samples:
        part = target.part(sample)
        name = target.picture(sample, part, "image")
        _depth(sample, ("metre",))
        if (steps := depth_steps(sample)) is not None:
            write_map((target.folder / part / "depth" / name).with_suffix(".png"), steps)
        yield


def export_npy(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Depth as NumPy's files."""
    yield from _export_floats(samples, target, ".npy", np.save)


def export_exr(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Depth as OpenEXR. Raises ConfigError where the extra is not installed."""
    try:
        import OpenEXR  # ty: ignore[import-not-found]  (compiled, without stubs)
    except ImportError as e:
        raise ConfigError(
            "OpenEXR is not installed", expected="the extra exr", remedy="pip install 'datasetdm[exr]'"
        ) from e

    def write(path: Path, depth: Float32[np.ndarray, "h w"]) -> None:
        head = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(head, {"Z": np.ascontiguousarray(depth)}) as file:
            file.write(str(path))

    yield from _export_floats(samples, target, ".exr", write)


def _export_floats(
    samples: Iterable[Sample], target: Target, suffix: str, write: Callable[[Path, Any], object]
) -> Iterator[None]:
    units: tuple[str, ...] = ("metre", "relative")
    for sample in samples:
        part = target.part(sample)
        name = target.picture(sample, "images", part)
        if depth := _depth(sample, units):
            units = (depth.unit,)
            path = (target.folder / "depth" / part / name).with_suffix(suffix)
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, depth.depth)
        yield
    write_json(target.folder / "depth.json", {"unit": units[0], "unknown": 0})


def _depth(sample: Sample, units: tuple[str, ...]) -> DepthMap | None:
    depth = sample.depth
    if depth is None:
        return None
    if depth.unit not in units:
        raise DataError(
            f"the depth is {depth.unit}", where=f"sample {sample.key!r}", expected=f"unit {' or '.join(units)}",
            remedy="export depth-npy, for metres and relative depth apart",
        )  # fmt: skip
    return depth


def depth_steps(sample: Sample, per_metre: int = KITTI) -> UInt16[np.ndarray, "h w"] | None:
    """Depth in whole steps, at least 1 where it is known, 0 where it is not or is too large; None without metres."""
    depth = sample.depth
    if depth is None or depth.unit != "metre":
        return None
    steps = np.maximum(np.rint(depth.depth * np.float32(per_metre)), depth.valid)
    return np.where(steps <= 65535, steps, 0).astype(np.uint16)


def write_map(path: Path, values: np.ndarray) -> None:
    """A label picture as PNG."""
    write_bytes(path, encode_png(values, 1))
