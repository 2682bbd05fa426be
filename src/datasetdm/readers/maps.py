"""Label maps: what their values or colours mean, and 16-bit depth."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image, UnidentifiedImageError

from datasetdm.errors import DataError
from datasetdm.io.codecs import MAX_PIXELS
from datasetdm.readers.source import other_size
from datasetdm.records import DepthMap
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
            return np.asarray(image.convert("L") if image.mode in ("1", "LA") else image)
    except FileNotFoundError as e:
        raise DataError("the label map is missing", where=where, expected="a file") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(f"the label map cannot be read: {e}", where=where, remedy="restore or remove it") from e


def _check_map(image: Image.Image, where: object, size: tuple[int, int]) -> None:
    """JPEG smears indices into other classes; of an animation nobody knows which frame is meant."""
    known = ("1", "L", "P", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L")
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
