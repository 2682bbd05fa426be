"""Depth maps: 16-bit steps, or floats of NumPy, TIFF and OpenEXR, and the unit that says what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, Field, ValidationError

from datasetdm.errors import ConfigError, DataError
from datasetdm.io.codecs import MAX_PIXELS
from datasetdm.io.files import require_regular
from datasetdm.readers.maps import read_map
from datasetdm.readers.places import json_of
from datasetdm.readers.source import other_size
from datasetdm.records import DepthMap

MILLIMETRE = 1 / 1000
"""In metres: the step of NYU Depth v2's PNGs as they are commonly shared."""

SUFFIXES = (".png", ".npy", ".tif", ".tiff", ".exr")
UNIT_FILE = "depth.json"

_LIKELY = (0.3, 1000.0)
"""Metres between which the largest depth of an image lies, if its unit is the one that is assumed."""

_FAR = (65504.0, 1e9)
"""Renderers' values of pixels at which nothing is: the largest float of 16 bits, and what is not below the second."""

_CHANNELS = ("Z", "V", "Y", "depth", "R")
"""Of OpenEXR files, the first that is there."""


class Unit(BaseModel, extra="forbid"):
    """What `depth.json` says: `{"unit": "metre", "unknown": 0}`, or `{"metres_per_step": 0.01}`."""

    unit: Literal["metre", "centimetre", "millimetre", "relative"] | None = None
    metres_per_step: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] | None = None
    unknown: float = 0

    @property
    def metres(self) -> float | None:
        """What a value is worth; None if nobody said so, or if the depth is relative."""
        named = {"metre": 1.0, "centimetre": 0.01, "millimetre": MILLIMETRE}
        return self.metres_per_step or named.get(self.unit or "")


def read_unit(folder: Path) -> Unit | None:
    """The unit that `depth.json` in a folder states; None where there is none. Raises DataError."""
    path, expected = folder / UNIT_FILE, '{"unit": "metre", "centimetre", "millimetre" or "relative"}'
    if not path.is_file():
        return None
    try:
        found = Unit.model_validate(json_of(path, expected))
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{name} cannot be read: {first['msg']}", where=path, expected=expected) from e
    if (found.unit is None) == (found.metres_per_step is None):
        raise DataError("the file states no unit, or two", where=path, expected=f"{expected} or metres_per_step")
    return found


def read_depth(
    source: Path | bytes, where: object, size: tuple[int, int], metres: float, invalid: tuple[int, ...] = (0,)
) -> DepthMap:
    """A 16-bit depth map whose steps are worth so many metres; `invalid` values are unknown.

    Raises:
        DataError: as `read_map`; or not 16 bits, since 8 of them are some other convention.
    """
    steps = _steps(source, where, size)
    return DepthMap(steps.astype(np.float32) * np.float32(metres), ~np.isin(steps, invalid))


def read_any_depth(path: Path, size: tuple[int, int], unit: Unit | None = None) -> DepthMap:
    """Depth of a 16-bit PNG, or of floats (.npy, TIFF, OpenEXR), which are unknown where they are 0, not finite or a
    renderer's value of nothing.

    Args:
        path: the file.
        size: (height, width) of its image.
        unit: that somebody stated. None: PNGs hold millimetres and floats metres, if they look like it.

    Raises:
        DataError: as `read_depth`; or values that look like another unit than the assumed one.
    """
    steps = path.suffix.lower() == ".png"
    values = _steps(path, path, size).astype(np.float32) if steps else _floats(path, size, whole=unit is not None)
    known = np.isfinite(values) & (values != (0 if unit is None else unit.unknown)) & (values != 0)
    if not steps:
        known &= (values != _FAR[0]) & (values < _FAR[1])
    if unit is not None and unit.unit == "relative":
        return _relative(values / 65535 if steps else values, known, path)
    metres = (MILLIMETRE if steps else 1.0) if unit is None else unit.metres or 1.0
    depth = np.where(known, values, 0) * np.float32(metres)
    if (depth < 0).any():
        raise DataError("depth is negative", where=path, expected="metres, 0 where it is unknown")
    largest = float(depth.max(initial=0))
    if unit is None and largest and not _LIKELY[0] <= largest <= _LIKELY[1]:
        stored = "metres stored as millimetres" if largest < 1 else "millimetres stored as metres"
        raise DataError(
            f"the largest depth is {largest:.3g} m, which looks like {stored}",
            where=path,
            expected="16-bit PNG in millimetres, or floats in metres",
            remedy=f'state the unit: write {UNIT_FILE} beside the folder of depth, for instance {{"unit": "metre"}}',
        )
    return DepthMap(depth, known)


def _relative(values: Float32[np.ndarray, "h w"], known: np.ndarray, path: Path) -> DepthMap:
    depth = np.where(known, values, 0)
    if (depth < 0).any() or (depth > 1).any():
        raise DataError("relative depth outside 0..1", where=path, expected="0..1, or another unit in " + UNIT_FILE)
    return DepthMap(depth, known, "relative")


def _steps(source: Path | bytes, where: object, size: tuple[int, int]) -> np.ndarray:
    steps = read_map(source, where, size)
    if steps.ndim != 2 or steps.dtype.itemsize < 2:
        raise DataError(f"the depth map holds {steps.dtype}", where=where, expected="one channel of 16 bits")
    if (steps < 0).any() or (steps > 65535).any():
        raise DataError("depth outside 16 bits", where=where, expected="0..65535")
    return steps


def _floats(path: Path, size: tuple[int, int], whole: bool) -> Float32[np.ndarray, "h w"]:
    """The values of a file; whole numbers, which could be steps of anything, only where a unit is stated."""
    values = _READ[path.suffix.lower()](path, size)
    kinds = "fui" if whole else "f"
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind not in kinds or values.ndim != 2:
        raise DataError(
            f"the depth is {values.dtype} with {values.ndim} axes",
            where=path,
            expected="floats [h w] in metres",
            remedy=None if whole else f"state the unit of whole numbers in {UNIT_FILE}",
        )
    if values.shape != size:
        raise other_size(path, values.shape, size)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _npy(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        require_regular(path)
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as e:
        raise DataError(f"the depth cannot be read: {e}", where=path, expected="a NumPy array of floats") from e
    if not isinstance(values, np.ndarray) or values.size > MAX_PIXELS:
        raise DataError("the file holds no depth of one image", where=path, expected="a NumPy array of floats [h w]")
    return values


def _exr(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        import OpenEXR  # ty: ignore[import-not-found]  (compiled, without stubs)
    except ImportError as e:
        raise ConfigError(
            "reading OpenEXR needs its library", expected="the extra exr", remedy="pip install 'datasetdm[exr]'"
        ) from e
    try:
        require_regular(path)
        (left, top), (right, bottom) = _window(OpenEXR.File(str(path), header_only=True))
        found = (bottom - top + 1, right - left + 1)
        if found == size:
            channels: dict[str, Any] = OpenEXR.File(str(path), separate_channels=True).channels()
            name = next((c for c in _CHANNELS if c in channels), next(iter(channels), None))
            values = None if name is None else np.asarray(channels[name].pixels)
    except Exception as e:  # RuntimeError and others, of C++
        what = str(e).splitlines()[0] if str(e) else repr(e)
        raise DataError(f"the depth cannot be read: {what}", where=path, expected="OpenEXR") from e
    if found != size:
        raise other_size(path, found, size)
    if values is None:
        raise DataError("the file has no channel", where=path, expected=", ".join(_CHANNELS))
    return values


def _window(file: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    (left, top), (right, bottom) = file.header()["dataWindow"]
    return (int(left), int(top)), (int(right), int(bottom))


def _tiff(path: Path, size: tuple[int, int]) -> np.ndarray:
    return read_map(path, path, size, fractions=True)


_READ = {".npy": _npy, ".exr": _exr, ".tif": _tiff, ".tiff": _tiff}
