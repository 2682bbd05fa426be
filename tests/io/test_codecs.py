from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.io import codecs
from datasetdm.records.objects import decode_runs, encode_runs
from factory import encode_rle

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20)


@given(arrays(np.uint16, SHAPES))
def test_png_keeps_16_bits(array: np.ndarray) -> None:
    assert np.array_equal(codecs.decode_png(codecs.encode_png(array), np.uint16), array)


KINDS = st.sampled_from([(np.uint8, ()), (np.uint16, ()), (np.uint8, (3,)), (np.uint8, (4,))])


@given(KINDS.flatmap(lambda k: SHAPES.flatmap(lambda s: arrays(k[0], (*s, *k[1])))), st.sampled_from([0, 1, 6]))
def test_a_png_holds_exactly_its_array(array: np.ndarray, level: int) -> None:
    """Read by us and by Pillow; what Pillow writes is read, too."""
    data = codecs.encode_png(array, level)
    assert data == codecs.encode_png(array.copy(), level)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert np.array_equal(np.asarray(image), array)
    read = codecs.decode_png(data, array.dtype.type)
    assert read.dtype == array.dtype and np.array_equal(read, array)
    other = io.BytesIO()
    Image.fromarray(array).save(other, "PNG")
    assert np.array_equal(codecs.decode_png(other.getvalue(), array.dtype.type), array)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_png_is_an_error_or_pixels(place: int, change: int) -> None:
    data = bytearray(codecs.encode_png(np.arange(300, dtype=np.uint16).reshape(15, 20), 0))
    data[place % len(data)] ^= change
    with contextlib.suppress(OSError, ValueError, SyntaxError):
        assert codecs.decode_png(bytes(data), np.uint16).size


@given(arrays(np.bool_, SHAPES))
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    assert np.array_equal(decode_runs(codecs.rle_counts(rle["counts"]), mask.shape), mask)


@given(st.lists(arrays(np.bool_, SHAPES), max_size=5))
def test_run_lengths_of_many_masks_are_those_of_each(masks: list[np.ndarray]) -> None:
    texts = [codecs.compress_runs(encode_runs(m), m.shape).encode() for m in masks]
    found = codecs.decompress_runs(texts)
    assert [r.tolist() for r in found] == [codecs.rle_counts(t).tolist() for t in texts]
    for damaged in (b"", b"5a", b"\x00", b"5\xff"):
        with pytest.raises(ValueError, match="no run lengths"):
            codecs.decompress_runs([*texts, damaged, b"5"])


@given(arrays(np.bool_, SHAPES), st.just(None))
def test_uncompressed_run_lengths(mask: np.ndarray, _: None) -> None:
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    counts = np.diff([0, *edges, len(flat)]).tolist()
    assert np.array_equal(decode_runs(codecs.rle_counts(counts), mask.shape), mask)


def test_polygons_fill_their_inside() -> None:
    mask = decode_runs(codecs.polygon_runs([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 9)), (6, 9))
    expected = np.zeros((6, 9), bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(mask, expected)


def test_images_of_every_mode(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    for mode in ("RGB", "L", "RGBA", "CMYK", "P", "1"):
        path = tmp_path / f"{mode}.tif"
        Image.fromarray(rgb).convert(mode).save(path)
        assert codecs.read_image(path, path).shape == (6, 8, 3)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.full((6, 8), 300 * 200, np.uint16)).save(deep)
    assert (codecs.read_image(deep, deep) == round(300 * 200 / 257)).all()


def test_exif_rotation_is_applied_once(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((6, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    image.save(path, exif=exif)
    assert codecs.read_image(path, path).shape == (8, 6, 3)
    assert codecs.image_size(path, path) == (8, 6)


def test_bad_images(tmp_path: Path) -> None:
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:3000])
    text = tmp_path / "text.png"
    text.write_text("no image")
    for path, what in ((cut, "cannot be read"), (text, "cannot be read"), (tmp_path / "none.png", "missing")):
        with pytest.raises(DataError, match=what) as caught:
            codecs.read_image(path, path)
        assert str(path) in str(caught.value)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "MAX_PIXELS", 100)
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((11, 11, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="121|11x11"):
        codecs.read_image(path, path)
