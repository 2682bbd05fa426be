"""Pixels to bytes and back: PNG with 8 or 16 bits, COCO run lengths. Nothing is lossy but what is said to be."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask as coco_mask
from jaxtyping import Int, Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from datasetdm.errors import DataError
from datasetdm.io.files import require_regular

PNG_START = b"\x89PNG\r\n\x1a\n"

MAX_PIXELS = 100_000_000
"""Larger images are refused: a decompression bomb, or nothing that a backbone could use."""


DEFLATE_RATIO = 1040
"""No DEFLATE stream grows by more when it is decompressed (1032 in its definition, and some headers)."""


def encode_png(array: np.ndarray, level: int = 6) -> bytes:
    """u8[h w], u8[h w 3 or 4] or u16[h w] as PNG. The same array gives the same bytes.

    Every row holds the differences to the pixel at its left, or above it where a pixel is one byte (these are read four times
    as fast), and runs are all that level 1 looks for: five times as fast as trying every filter, in files a tenth larger.

    Args:
        level: of compression: 0 is none (for a column that is compressed as a whole), 1 fast, 9 small.
    """
    h, w = array.shape[:2]
    channels = array.shape[2] if array.ndim == 3 else 1
    rows = np.ascontiguousarray(array.astype(array.dtype.newbyteorder(">"), copy=False)).view(np.uint8).reshape(h, -1)
    step = channels * array.itemsize
    filtered = np.empty((h, rows.shape[1] + 1), np.uint8)
    differences = filtered[:, 1:]
    if step == 1:
        filtered[:, 0] = _UP
        differences[0] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=differences[1:])
    else:
        filtered[:, 0] = _SUB
        differences[:, :step] = rows[:, :step]
        np.subtract(rows[:, step:], rows[:, :-step], out=differences[:, step:])
    strategy = zlib.Z_RLE if level == 1 else zlib.Z_DEFAULT_STRATEGY
    packer = zlib.compressobj(level, strategy=strategy)
    header = struct.pack(">IIBBBBB", w, h, 8 * array.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packer.compress(filtered.data) + packer.flush()), (b"IEND", b""))
    return PNG_START + b"".join(_png_chunk(kind, data) for kind, data in chunks)


_SUB, _UP = 1, 2
"""PNG's filter types for differences to the left, and to above."""

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Channels -> PNG's colour type: greyscale, RGB, RGBA."""

_CHANNELS = {colour: channels for channels, colour in _COLOUR_TYPES.items()}

_HEAD = struct.Struct(">8sI4sIIBBBBBII4s")
"""A PNG's mark, its IHDR chunk, and the length and name of the chunk that follows."""


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def copyable_suffix(encoded: Path | bytes) -> str | None:
    """The suffix of an encoded image that any program shows with the pixels that `read_image` gives, or None.

    Images that would have to be rotated (EXIF), converted to RGB or decoded by rare libraries are not among them.
    """
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            suffix = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}.get(image.format or "")
            if image.mode != "RGB" or getattr(image, "n_frames", 1) != 1 or not suffix:
                return None
            if suffix == ".png":  # whose EXIF may come last, and which Pillow would decode to find it
                data = encoded if isinstance(encoded, bytes) else encoded.read_bytes()
                return None if b"eXIf" in data or b"Raw profile type" in data else suffix
            return suffix if image.getexif().get(0x0112, 1) == 1 else None
    except (OSError, ValueError, SyntaxError):
        return None


def decode_png(data: bytes, dtype: type) -> np.ndarray:
    """The array that `encode_png` was given, or the pixels of any other PNG, as `dtype`.

    Raises:
        OSError, ValueError, SyntaxError: no PNG, or a damaged one.
    """
    height, width = png_size(data)
    if height * width > MAX_PIXELS:
        raise ValueError(f"an image of {width}x{height} pixels, expected at most {MAX_PIXELS}")
    own = _decode_own_png(data)
    if own is not None:
        return own.astype(dtype, copy=False)
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).astype(dtype, copy=False)


def _decode_own_png(data: bytes) -> np.ndarray | None:
    """What `encode_png` was given, three times as fast as any PNG can be read; None for PNGs of another form."""
    if len(data) < _HEAD.size:
        return None
    mark, _, _, w, h, bits, colour, packing, filters, interlaced, _, size, kind = _HEAD.unpack_from(data)
    channels = _CHANNELS.get(colour)
    end = _HEAD.size + size
    known = mark == PNG_START and kind == b"IDAT" and data[end + 8 : end + 12] == b"IEND" and bits in (8, 16)
    if not known or channels is None or packing or filters or interlaced:
        return None
    step, flat = channels * bits // 8, b""
    if h * (w * step + 1) > DEFLATE_RATIO * len(data):
        return None  # a damaged header
    with contextlib.suppress(zlib.error):
        flat = zlib.decompress(memoryview(data)[_HEAD.size : end], bufsize=h * (w * step + 1))
    if not flat or len(flat) != h * (w * step + 1):
        return None
    rows = np.frombuffer(flat, np.uint8).reshape(h, w * step + 1)
    if (rows[:, 0] == _SUB).all():
        pixels = np.add.accumulate(rows[:, 1:].reshape(h, w, step), axis=1, dtype=np.uint8)
    elif (rows[:, 0] == _UP).all():
        pixels = np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8).reshape(h, w, step)
    else:
        return None
    if bits == 16:
        pixels = pixels.view(">u2").astype(np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


def png_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a PNG, by its first 24 bytes. Raises ValueError if it is none."""
    if data[:8] != PNG_START or len(data) < 24:
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def read_image(source: Path | bytes, where: object) -> UInt8[np.ndarray, "h w 3"]:
    """Any image that Pillow reads as 8-bit RGB, its EXIF rotation applied.

    Raises:
        DataError: missing, truncated, too large, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with _opened(source) as image:
                _check_pixels(image, where)
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode[0] in "IF":
                    return _eight_bits(np.asarray(image), where)
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except FileNotFoundError as e:
        raise DataError("the image is missing", where=where, expected="a file", remedy="check --images") from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(
            f"the image cannot be read: {e}",
            where=where,
            expected="a whole JPEG, PNG or WebP",
            remedy="restore or remove it",
        ) from e


def _eight_bits(values: np.ndarray, where: object) -> UInt8[np.ndarray, "h w 3"]:
    """Grey of 16 or 32 bits as 8-bit RGB: floats of 0..1 times 255, integers of 0..65535 divided by 257.

    Raises:
        DataError: other values; or none above a sixteenth of the range, as of 12 bits in 16: the image would be black.
    """
    floats = values.dtype.kind == "f"
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (low >= 0 and high <= (1 if floats else 65535)):
        raise DataError(
            f"the image holds {'floats' if floats else 'integers'} of {low:g}..{high:g}",
            where=where,
            expected="floats of 0..1 or integers of 0..65535",
            remedy="convert it to 8 bits",
        )
    most = 1 if floats else 65535
    if 0 < high < most / 16:
        raise DataError(
            f"the image has no value above {high:g} of {most}, so it would be nearly black",
            where=where,
            expected="values that use their range",
            remedy="stretch them to the whole range, or convert the image to 8 bits",
        )
    grey = np.rint(values * 255 if floats else values / 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _opened(source: Path | bytes) -> Image.Image:
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source))
    require_regular(source)
    return Image.open(source)


def image_size(path: Path, where: object) -> tuple[int, int]:
    """(height, width) as `read_image` would give it, without decoding the pixels; the file's name is text."""
    try:
        path.name.encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _opened(path)
        with image:
            _check_pixels(image, where)
            turned = Image.Image.getexif(image).get(0x0112, 1) >= 5  # PNG's own would decode the image
            return (image.width, image.height) if turned else (image.height, image.width)
    except FileNotFoundError as e:
        raise DataError("the image is missing", where=where, expected="a file", remedy="check --images") from e
    except UnicodeEncodeError as e:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise DataError(
            "a file's name is not UTF-8, so no format could write it", where=shown, remedy="rename the file"
        ) from e
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise DataError(f"the image cannot be read: {e}", where=where, remedy="restore or remove it") from e


def _check_pixels(image: Image.Image, where: object) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"the image has {image.width}x{image.height} pixels", where=where, expected="at most 100 MP")


def rle_counts(counts: str | bytes | Sequence[Any] | np.ndarray) -> Int64[np.ndarray, "n"]:
    """The lengths of runs, off and on in turn, of compressed or uncompressed run lengths. Any text gives some numbers;
    only those that are not negative and fill the image are a mask.

    Compressed: every number in groups of 5 bits, low ones first, bit 6 says that another follows, the characters begin
    at "0"; from the fourth number on each is the difference to the one before the last (COCO's maskApi).
    """
    if not isinstance(counts, (str, bytes)):
        values = np.asarray(counts)
        if values.ndim != 1 or values.dtype.kind not in "iuf" or bool((values != np.floor(values)).any()):
            raise ValueError("run lengths are whole numbers")
        return values.astype(np.int64)
    return decompress_runs([counts.encode("ascii") if isinstance(counts, str) else counts])[0]


def decompress_runs(texts: Sequence[bytes]) -> list[Int64[np.ndarray, "n"]]:
    """`rle_counts` of many compressed masks at once."""
    if not texts:
        return []
    groups = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    last = (groups & 32) == 0
    stops = np.cumsum([len(t) for t in texts])
    if not all(texts) or not last[stops - 1].all() or (groups < 0).any() or (groups > 63).any():
        raise ValueError("no run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((groups & 31) << np.minimum(5 * place, 58), starts)
    negative = (groups[ends] & 16) != 0
    values[negative] -= np.int64(1) << np.minimum(5 * (ends - starts + 1)[negative], 58)
    found = np.split(values, np.searchsorted(ends, stops[:-1]))
    for runs in found:
        runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return found


def compress_runs(runs: Int[np.ndarray, "n"], size: tuple[int, int]) -> str:
    """Run lengths of a mask of this (height, width) as COCO's compressed text; `rle_counts` gives them back."""
    rle = coco_mask.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return rle["counts"].decode("ascii")


def polygon_runs(polygons: Sequence[Sequence[float | int]], size: tuple[int, int]) -> Int64[np.ndarray, "n"]:
    """Run lengths of the union of polygons [x0, y0, x1, y1, ...] in pixels."""
    return rle_counts(coco_mask.merge(coco_mask.frPyObjects([list(p) for p in polygons], *size))["counts"])
