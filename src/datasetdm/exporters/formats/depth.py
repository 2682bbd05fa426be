"""Depth beside images: 16-bit PNG in KITTI's convention, or floats as NPY or OpenEXR.

    depth-kitti    `image/NAME.png`, `depth/NAME.png`: 1/256 m per step (KITTI's depth benchmark); splits are folders above
    depth-npy      `images/NAME.png`, `depth/NAME.npy`: float32
    depth-exr      `images/NAME.png`, `depth/NAME.exr`: float32, channel Z; needs the extra `exr`

0 is unknown in all of them, and so is what lies beyond the 16 bits (256 m). NPY and EXR hold metres or relative depth, one of
them; `depth.json` says which. A sample without depth is an image alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from datasetdm.errors import ConfigError, DataError, OutputError
from datasetdm.exporters.maps import depth_steps, write_map
from datasetdm.exporters.target import Target
from datasetdm.io.files import write_json
from datasetdm.records import DepthMap, Sample


def export_kitti(samples: Iterable[Sample], target: Target) -> Iterator[None]:
    """Depth as PNG of 16 bits."""
    for sample in samples:
        name = target.write_image(sample, sample.split, "image")
        _depth(sample, ("metre",))
        if (steps := depth_steps(sample)) is not None:
            write_map((target.folder / sample.split / "depth" / name).with_suffix(".png"), steps)
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
        try:
            with OpenEXR.File(head, {"Z": np.ascontiguousarray(depth)}) as file:
                file.write(str(path))
        except RuntimeError as e:  # which does not say whether the disk is full
            raise OutputError(f"OpenEXR cannot write: {e}", where=path, remedy="free some space") from e

    yield from _export_floats(samples, target, ".exr", write)


def _export_floats(
    samples: Iterable[Sample], target: Target, suffix: str, write: Callable[[Path, Any], object]
) -> Iterator[None]:
    units: tuple[str, ...] = ("metre", "relative")
    for sample in samples:
        name = target.write_image(sample, "images", sample.split)
        if depth := _depth(sample, units):
            units = (depth.unit,)
            path = (target.folder / "depth" / sample.split / name).with_suffix(suffix)
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
