"""Label maps: the integers or colours that files store, and what they mean."""

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
from datasetdm.io.files import require_regular
from datasetdm.readers.source import other_size
from datasetdm.records import IGNORE
from datasetdm.records.objects import spans

Colour = tuple[int, int, int]


def read_map(
    source: Path | bytes, where: object, size: tuple[int, int], colours: bool = False, fractions: bool = False
) -> np.ndarray:
    """The values of a label map: u8 or u16[h w] (of a palette image its indices), or colours u8[h w 3].

    Args:
        size: (height, width) of the image that it belongs to.
        colours: of a palette image the colours instead.
        fractions: floats are let through as they are.

    Raises:
        DataError: missing, truncated, too large, lossy, or of another size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if isinstance(source, Path):
                require_regular(source)
            opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with opened as image:
            _check_map(image, where, size)
            if image.mode == "F" and fractions:
                return np.asarray(image)
            if image.mode == "P" and colours:
                return np.asarray(image.convert("RGB"))
            return _stored(image, where)
    except FileNotFoundError as e:
        raise DataError("the label map is missing", where=where, expected="a file") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(f"the label map cannot be read: {e}", where=where, remedy="restore or remove it") from e


def _stored(image: Image.Image, where: object) -> np.ndarray:
    """The integers as the file holds them: Pillow spreads grey values of 1, 2 or 4 bits to 0..255, keeps 8 bits of 16 where
    there are several channels, and turns what a TIFF stores with white as 0."""
    tiles: Any = getattr(image, "tile", None)
    tile = tiles[0][3] if tiles else image.mode  # known until the pixels are decoded
    raw = str(tile[0] if isinstance(tile, tuple) and tile else tile)
    values = np.asarray(image)
    if values.ndim == 3 and "16" in raw:
        raise DataError("the label map has colours of 16 bits", where=where, expected="one channel, or 8 bits each")
    if image.mode in ("LA", "RGBA"):
        values = _without_alpha(values, where)
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


def _without_alpha(values: np.ndarray, where: object) -> np.ndarray:
    """Grey or colours without their transparency, unless it tells pixels apart that are equal without it."""
    grey = values.shape[2] == 2
    alpha, rest = values[..., -1], values[..., 0] if grey else values[..., :3]
    if alpha.min(initial=255) != alpha.max(initial=0):
        plain = rest.astype(np.uint32) if grey else packed(rest)
        if len(np.unique(plain | alpha.astype(np.uint32) << 24)) > len(np.unique(plain)):
            raise DataError(
                "the label map's transparency tells apart what its colours do not",
                where=where,
                expected="a PNG of indices, of 16 bits or of colours",
                remedy="save the transparency as a map of its own",
            )
    return rest


def require_classes(palette: Palette, maps: Iterable[tuple[Path | bytes, object]]) -> None:
    """Refuse label maps of 0 and 255 alone where classes have other values: that 255 is a class, and not `ignore`.

    Maps (and where each lies, for the message) are read until one has a class, so for most data one is.
    """
    named = {v: i for v, i in palette.values.items() if v and i != IGNORE}
    if not named or not palette.assumes_ignore:
        return
    first: object = None
    for source, where in maps:
        try:
            ids = palette.ids(source, where, map_size(source, where))
        except DataError:
            continue  # which is said when the samples are checked or read
        if np.isin(ids, list(named.values())).any():
            return
        first = first or (where if (ids == IGNORE).any() else None)
    if first:
        raise DataError(
            "label maps hold 255, which has no name, and no other class",
            where=first,
            expected=f"the values {', '.join(map(str, sorted(named)[:8]))}",
            remedy='name the value, for instance {"background": 0, "lesion": 255}, or say {"ignore": 255}',
        )


def map_size(source: Path | bytes, where: object) -> tuple[int, int]:
    """(height, width) of a label map. Raises DataError."""
    if isinstance(source, Path):
        return image_size(source, where)
    try:
        with Image.open(io.BytesIO(source)) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as e:
        raise DataError(f"the label map cannot be read: {e}", where=where) from e


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
