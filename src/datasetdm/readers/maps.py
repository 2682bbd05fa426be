"""Label maps: what their values or colours mean, and 16-bit depth."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16
from PIL import Image, UnidentifiedImageError

from datasetdm.errors import DataError
from datasetdm.io.codecs import MAX_PIXELS, image_size
from datasetdm.readers.source import other_size
from datasetdm.records import IGNORE, DepthMap
from datasetdm.records.objects import spans

Colour = tuple[int, int, int]

MILLIMETRE = 1 / 1000
"""In metres: the step of NYU Depth v2's PNGs as they are commonly shared."""


def read_map(source: Path | bytes, where: object, size: tuple[int, int], colours: bool = False) -> np.ndarray:
    """The values of a label map: u8 or u16[h w] (of a palette image its indices), or colours u8[h w 3].

    Args:
        size: (height, width) of the image that it belongs to.
        colours: of a palette image the colours instead.

    Raises:
        DataError: missing, truncated, too large, lossy, or of another size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with opened as image:
            _check_map(image, where, size)
            if image.mode == "RGBA" or (image.mode == "P" and colours):
                return np.asarray(image.convert("RGB"))
            return _stored(image, where)
    except FileNotFoundError as e:
        raise DataError("the label map is missing", where=where, expected="a file") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(f"the label map cannot be read: {e}", where=where, remedy="restore or remove it") from e


def _stored(image: Image.Image, where: object) -> np.ndarray:
    """The integers as the file holds them: Pillow spreads grey values of 1, 2 or 4 bits to 0..255, and turns what a TIFF
    stores with white as 0."""
    tiles: Any = getattr(image, "tile", None)
    tile = tiles[0][3] if tiles else image.mode  # known until the pixels are decoded
    raw = str(tile[0] if isinstance(tile, tuple) and tile else tile)
    values = np.asarray(image.convert("L") if image.mode == "LA" else image)
    if image.mode == "1":
        values, most = values.astype(np.uint8), 1
    else:
        most = (1 << int(bits[1])) - 1 if (bits := re.match(r"L;([24])", raw)) else 255
        values = values // (255 // most) if most < 255 else values
    if image.mode in ("1", "L") and re.search(r"[;\d]I", raw):
        values = most - values
    if image.mode == "F":
        if not bool((np.floor(values) == values).all()) or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise DataError("the label map holds fractions", where=where, expected="whole numbers 0..65535")
        values = values.astype(np.uint16)
    return values


def require_classes(palette: Palette, maps: Iterable[Path]) -> None:
    """Refuse label maps of 0 and 255 alone where classes have other values: that 255 is a class, and not `ignore`.

    Maps are read until one has a class, so for most data one is.
    """
    named = {v for v, i in palette.values.items() if v and i != IGNORE}
    if not named or not palette.assumes_ignore:
        return
    first: Path | None = None
    for path in maps:
        try:
            values = read_map(path, path, image_size(path, path))
        except DataError:
            continue  # which is said when the samples are checked or read
        found = set(np.unique(values).tolist()) if values.ndim == 2 else named
        if found & named:
            return
        first = first or (path if 255 in found else None)
    if first:
        raise DataError(
            "label maps hold 255, which has no name, and no other class",
            where=first,
            expected=f"the values {', '.join(map(str, sorted(named)[:8]))}",
            remedy='name the value, for instance {"background": 0, "lesion": 255}, or say {"ignore": 255}',
        )


def _check_map(image: Image.Image, where: object, size: tuple[int, int]) -> None:
    """JPEG smears indices into other classes; of an animation nobody knows which frame is meant."""
    known = ("1", "L", "P", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L", "F")
    animated = getattr(image, "n_frames", 1) > 1
    if image.format in ("JPEG", "MPO") or image.mode not in known or animated:
        what = f"the label map is a {image.format} of mode {image.mode}" + ", animated" * animated
        raise DataError(what, where=where, expected="a PNG of indices, of 16 bits or of colours")
    if (found := (image.height, image.width)) != size or image.height * image.width > MAX_PIXELS:
        raise other_size(where, found, size)


@dataclass(frozen=True)
class Palette:
    """What the values or the colours of a label map mean: label ids, or `IGNORE`. All others are errors."""

    values: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[Colour, int] = field(default_factory=dict)
    assumes_ignore: bool = False
    """Whether 255 is ignored by custom only: nothing names it."""

    def ids(self, source: Path | bytes, where: object, size: tuple[int, int]) -> UInt16[np.ndarray, "h w"]:
        """The label ids of a label map.

        Raises:
            DataError: as `read_map`; or a value or a colour that the palette does not know.
        """
        return self.decode(read_map(source, where, size, colours=not self.values), where)

    def decode(self, pixels: np.ndarray, where: object) -> UInt16[np.ndarray, "h w"]:
        """The label ids of values u8 or u16[h w], or of colours u8[h w 3]."""
        if pixels.ndim == 3 and not self.colours and bool((pixels == pixels[..., :1]).all()):
            pixels = pixels[..., 0]  # indices saved as grey
        if pixels.ndim == 3:
            return _looked_up(packed(pixels), {_pack(c): i for c, i in self.colours.items()}, where, _unpack)
        if not self.values:
            raise DataError("the label map has indices", where=where, expected="colours of the palette")
        return _looked_up(pixels, self.values, where, str)


def _looked_up(pixels: np.ndarray, table: Mapping[int, int], where: object, shown: Callable[[int], str]) -> np.ndarray:
    flat = pixels.reshape(-1)
    starts, lengths = spans(flat)
    found, inverse = np.unique(flat[starts], return_inverse=True)
    strange = [v for v in found.tolist() if v not in table]
    if strange:
        names = ", ".join(shown(v) for v in strange[:5]) + (", ..." if len(strange) > 5 else "")
        known = ", ".join(shown(v) for v in sorted(table)[:8]) + (", ..." if len(table) > 8 else "")
        count = int(lengths[np.isin(flat[starts], strange)].sum())
        raise DataError(f"{count} pixels of unknown classes: {names}", where=where, expected=f"one of: {known}")
    ids = np.array([table[v] for v in found.tolist()], np.uint16)[inverse]
    return np.repeat(ids, lengths).reshape(pixels.shape)


def packed(pixels: np.ndarray) -> np.ndarray:
    """Colours u8[h w 3] as one number each, red + 256 green + 65536 blue (panopticapi's ids)."""
    numbers = pixels[..., 2].astype(np.uint32)
    for channel in (1, 0):
        numbers <<= 8
        numbers |= pixels[..., channel]
    return numbers


def _pack(colour: Colour) -> int:
    return colour[0] + 256 * colour[1] + 65536 * colour[2]


def _unpack(value: int) -> str:
    return str((value & 255, value >> 8 & 255, value >> 16))


def read_depth(
    source: Path | bytes, where: object, size: tuple[int, int], metres: float, invalid: tuple[int, ...] = (0,)
) -> DepthMap:
    """A 16-bit depth map whose steps are worth so many metres; `invalid` values are unknown.

    Raises:
        DataError: as `read_map`; or not 16 bits, since 8 of them are some other convention.
    """
    steps = read_map(source, where, size)
    if steps.ndim != 2 or steps.dtype.itemsize < 2:
        raise DataError(f"the depth map holds {steps.dtype}", where=where, expected="one channel of 16 bits")
    if (steps < 0).any() or (steps > 65535).any():
        raise DataError("depth outside 16 bits", where=where, expected="0..65535")
    return DepthMap(steps.astype(np.float32) * np.float32(metres), ~np.isin(steps, invalid))


DEPTH_SUFFIXES = (".png", ".npy", ".tif", ".tiff")

_LIKELY = (0.1, 1000.0)
"""Metres between which the largest depth of an image lies, if its unit is the one that is stated."""


def read_any_depth(path: Path, size: tuple[int, int]) -> DepthMap:
    """Depth of a 16-bit PNG in millimetres, or of floats (.npy, TIFF) in metres, which are unknown where 0 or not finite.

    Raises:
        DataError: as `read_depth`; or values that look like another unit.
    """
    if path.suffix.lower() == ".png":
        depth = read_depth(path, path, size, MILLIMETRE)
    else:
        metres = _float_map(path, size)
        depth = DepthMap(metres, np.isfinite(metres) & (metres != 0))
    largest = float(depth.depth.max(initial=0))
    if largest and not _LIKELY[0] <= largest <= _LIKELY[1]:
        stored = "metres stored as millimetres" if largest < 1 else "millimetres stored as metres"
        raise DataError(
            f"the largest depth is {largest:.3g} m, which looks like {stored}",
            where=path,
            expected="16-bit PNG in millimetres, or floats in metres",
        )
    return depth


def _float_map(path: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path)
        else:
            with Image.open(path) as image:
                values = np.asarray(image) if image.mode == "F" else np.zeros(())
    except (OSError, ValueError, SyntaxError, EOFError) as e:
        raise DataError(f"the depth cannot be read: {e}", where=path, expected="floats in metres") from e
    if values.dtype.kind != "f" or values.ndim != 2:
        raise DataError(
            f"the depth is {values.dtype} with {values.ndim} axes", where=path, expected="floats [h w] in metres"
        )
    if values.shape != size:
        raise other_size(path, values.shape, size)
    return values.astype(np.float32)
