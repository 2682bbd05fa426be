from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasetdm.errors import DataError
from datasetdm.io.codecs import read_image
from datasetdm.readers import read
from datasetdm.readers.maps import Palette, packed, read_depth, read_map
from datasetdm.records import IGNORE
from factory import known
from labelled import masks_folder, noise_image, save, write

REAL = os.environ.get("DATASETDM_REAL")


def test_masks_of_values(tmp_path: Path) -> None:
    first, second = read(f"masks:{masks_folder(tmp_path)}")
    ids = first.semantic.ids
    assert first.labels.names == ("wall", "tree") and (first.key, second.key) == ("a", "sub/b b")
    assert (ids[:5] == 1).all() and (ids[5:9] == IGNORE).all() and (ids[9:] == 0).all()


@pytest.mark.parametrize(
    "classes",
    [
        {"wall": 0, "tree": 1},
        {"wall": 0, "tree": 1, "ignore": 255},
        {"wall": [0, 0, 0], "tree": [0, 128, 0], "ignore": [255, 255, 255]},
        {"wall": "#000000", "tree": "#008000", "ignore": ["#ffffff", [1, 2, 3]]},
    ],
)
def test_legends_say_the_same_in_many_ways(classes: dict[str, Any], tmp_path: Path) -> None:
    """Colours are looked up in true colours and in palette images alike."""
    folder = masks_folder(tmp_path, classes)
    if not isinstance(classes["wall"], int):
        table = np.zeros((256, 3), np.uint8)
        table[1], table[255] = (0, 128, 0), (255, 255, 255)
        values = np.asarray(Image.open(folder / "masks" / "a.png"))
        save(folder / "masks" / "a.png", table[values])
        save(folder / "masks" / "sub" / "b b.png", values, table)
    for sample in read(f"masks:{folder}"):
        ids = sample.semantic.ids
        assert (ids[:5] == 1).all() and (ids[5:9] == IGNORE).all() and (ids[9:] == 0).all()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("id2label.json", {"0": "wall", "1": "tree"}),
        ("dataset_meta.json", {"label_map": {"0": "wall", "1": "tree"}}),
        (
            "objectInfo150.txt",
            "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t.1\t1\t1\t1\ttree, plant\n2\t.1\t1\t1\t0\tcup\n",
        ),
    ],
)
def test_other_tools_legends(file: str, content: Any, tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    (folder / "classes.json").unlink()
    write(folder / file, content)
    sample = next(iter(read(f"masks:{folder}")))
    ids = sample.semantic.ids
    assert sample.labels.names[ids[0, 0]] == "tree" and ids[5, 0] == IGNORE
    if file == "objectInfo150.txt":
        assert ids[19, 0] == IGNORE and sample.labels.stuff == ("tree",) and sample.labels.synonyms[0] == ("plant",)


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        (["wall", "wall"], "names no classes"),
        ({"wall": 0, "tree": 0}, "means two classes"),
        ({"wall": 0, "tree": "green"}, "'green' is no value or colour"),
        ({"wall": 0, "tree": [1, 2]}, "no value or colour"),
        ({"wall": 0, "tree": 70_000}, "no value or colour"),
        ("[", "no JSON"),
        ([], "names no classes"),
        (["wall", "Wall"], "clash"),
    ],
)
def test_bad_legends_are_refused(classes: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what):
        read(f"masks:{masks_folder(tmp_path, classes)}")


def test_what_has_no_name_is_an_error(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path, {"wall": 0, "ignore": 255})
    with pytest.raises(DataError, match="150 pixels of unknown classes: 1") as caught:
        list(read(f"masks:{folder}"))
    assert "a.png" in str(caught.value) and "one of: 0, 255" in str(caught.value)
    (folder / "classes.json").unlink()
    with pytest.raises(DataError, match="nothing says what"):
        read(f"masks:{folder}")


def test_depth_beside_masks(tmp_path: Path) -> None:
    save(masks_folder(tmp_path) / "depth" / "a.png", np.full((20, 30), 2500, np.uint16))
    first, second = read(f"masks:{tmp_path}")
    assert np.allclose(first.depth.depth, 2.5) and known(second) == ["semantic"]


def test_missing_and_surplus_files(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    (folder / "masks" / "a.png").rename(folder / "masks" / "c.png")
    with pytest.raises(DataError, match="label file is missing"):
        read(f"masks:{folder}")
    reader = read(f"masks:{folder}", on_error="skip")
    assert [s.key for s in reader] == ["sub/b b"]
    assert [e.what for e in reader.skipped] == ["an image's label file is missing", "the mask has no image"]
    with pytest.raises(DataError, match="leaves its folder"):
        read(f"masks:{folder}@../x")
    assert [s.key for s in read(f"masks:{folder}@sub")] == ["b b"]


def test_two_images_for_one_mask(tmp_path: Path) -> None:
    noise_image(masks_folder(tmp_path) / "images" / "a.png")
    with pytest.raises(DataError, match="two images are called 'a'"):
        read(f"masks:{tmp_path}")


def test_label_images_that_lose_or_hide_values(tmp_path: Path) -> None:
    """JPEG smears indices into other classes; of an animation nobody knows which frame is meant."""
    flat = Image.new("L", (30, 20), 1)
    flat.save(tmp_path / "a.jpg")
    flat.save(tmp_path / "b.png", save_all=True, append_images=[Image.new("L", (30, 20), 2)])
    for name, what in (("a.jpg", "is a JPEG"), ("b.png", "animated")):
        with pytest.raises(DataError, match=what):
            read_map(tmp_path / name, name, (20, 30))
    with pytest.raises(DataError, match="30x20 pixels"):
        save(tmp_path / "c.png", np.zeros((20, 30), np.uint8))
        read_map(tmp_path / "c.png", "c", (30, 20))


def test_16_bit_masks_and_8_bit_depth(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.full((4, 5), 300, np.uint16))
    assert (Palette({300: 7}).ids(path, path, (4, 5)) == 7).all()
    assert np.allclose(read_depth(path, path, (4, 5), 1 / 1000).depth, 0.3)
    path = save(tmp_path / "d.png", np.full((4, 5), 30, np.uint8))
    with pytest.raises(DataError, match="16 bits"):
        read_depth(path, path, (4, 5), 1 / 1000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=20, unique=True), st.randoms())
def test_any_palette_is_read_back(colours: list[tuple[int, int, int]], random: Any) -> None:
    """Colours are told apart exactly, and one that is not listed is named."""
    ids = np.array([[random.randrange(len(colours)) for _ in range(6)] for _ in range(5)], np.uint16)
    pixels = np.array(colours, np.uint8)[ids]
    assert np.array_equal(Palette({}, {c: i for i, c in enumerate(colours)}).decode(pixels, "x"), ids)
    assert packed(pixels).tolist() == [[r + 256 * g + 256 * 256 * b for r, g, b in row] for row in pixels.tolist()]
    first = colours[ids[0, 0]]
    with pytest.raises(DataError, match="unknown classes"):
        Palette({}, {c: i for i, c in enumerate(colours) if c != first} | {(256, 0, 0): 0}).decode(pixels, "x")


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_ade20k_files(tmp_path: Path) -> None:
    """3 photographs; value i stands for class i - 1."""
    for name in ("images", "annotations"):
        shutil.copytree(Path(str(REAL)) / "ade20k" / name, tmp_path / name)
    write(tmp_path / "classes.json", {f"class {i}": i for i in range(1, 151)} | {"ignore": 0})
    samples = list(read(f"masks:{tmp_path}"))
    assert len(samples) == 3
    for sample in samples:
        values = np.asarray(Image.open(tmp_path / "annotations" / f"{sample.key}.png")).astype(int)
        ids = sample.semantic.ids
        assert np.array_equal(np.where(ids == IGNORE, 0, ids.astype(int) + 1), values)
    first = next(iter(read(f"masks:{Path(str(REAL)) / 'fixtures/common_semantic_segmentation_dataset/dataset'}")))
    assert first.labels.names[first.semantic.ids[0, 0]] in first.labels.names


# ---------------------------------------------------------------------- bit depths
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_stored_integer_is_the_label(bits: int, tmp_path: Path) -> None:
    """Grey PNGs of any depth, which Pillow would spread to 0..255."""
    most = min(2**bits - 1, 15)
    values = np.arange(600).reshape(20, 30) % (most + 1)
    row = 2 if bits == 16 else 1
    packed_rows = b"".join(
        b"\0" + (line.astype(">u2").tobytes() if row == 2 else packed_bits(line, bits)) for line in values
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30, 20, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(packed_rows)),
        (b"IEND", b""),
    )
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path = tmp_path / "m.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.array_equal(read_map(path, path, (20, 30)), values)


def packed_bits(line: np.ndarray, bits: int) -> bytes:
    return np.packbits((line[:, None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8)).tobytes()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int32, np.float32])
def test_tiffs_of_any_depth(dtype: type, tmp_path: Path) -> None:
    values = np.arange(600).reshape(20, 30) % 2
    path = save(tmp_path / "m.tif", values.astype(dtype))
    assert np.array_equal(read_map(path, path, (20, 30)), values)
    if dtype is np.float32:
        save(path, values.astype(dtype) / 2)
        with pytest.raises(DataError, match="fractions"):
            read_map(path, path, (20, 30))


def test_a_binary_mask_of_255_is_no_empty_mask(tmp_path: Path) -> None:
    """0 and 255 with classes 0 and 1: an error, unless 255 is named, or another mask shows the class."""
    folder = masks_folder(tmp_path)
    masks = sorted((folder / "masks").rglob("*.png"))
    whole = np.asarray(Image.open(masks[1]))
    for path in masks:
        save(path, np.where(whole == 1, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match="hold 255, which has no name") as caught:
        read(f"masks:{folder}")
    assert "remedy" in str(caught.value)
    write(folder / "classes.json", {"wall": 0, "tree": 255})
    assert {s.annotations.labels_in() == {0, 1} for s in read(f"masks:{folder}")} == {True}
    write(folder / "classes.json", {"wall": 0, "tree": 1, "ignore": 255})
    assert len(list(read(f"masks:{folder}"))) == 2
    write(folder / "classes.json", ["wall", "tree"])
    save(masks[1], whole)
    assert len(list(read(f"masks:{folder}"))) == 2


def test_depth_of_floats_and_of_wrong_units(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    metres = np.full((20, 30), 2.5, np.float32)
    metres[0], metres[1] = 0, np.nan
    (folder / "depth").mkdir()
    np.save(folder / "depth" / "a.npy", metres)
    first, _ = read(f"masks:{folder}")
    assert first.depth.valid.sum() == 18 * 30 and first.depth.unit == "metre" and first.depth.depth[2, 0] == 2.5
    (folder / "depth" / "a.npy").unlink()
    save(folder / "depth" / "a.tif", metres)
    assert next(iter(read(f"masks:{folder}"))).depth.valid.sum() == 18 * 30
    (folder / "depth" / "a.tif").unlink()
    save(folder / "depth" / "a.png", np.full((20, 30), 3, np.uint16))
    with pytest.raises(DataError, match="metres stored as millimetres"):
        list(read(f"masks:{folder}"))
    (folder / "depth" / "a.png").rename(folder / "depth" / "a.exr")
    with pytest.raises(DataError, match=r"depth is no \.exr"):
        read(f"masks:{folder}")
    (folder / "depth" / "a.exr").unlink()
    save(folder / "depth" / "z.png", np.full((20, 30), 3000, np.uint16))
    with pytest.raises(DataError, match="depth file has no image"):
        read(f"masks:{folder}")


def test_float_images_are_scaled_or_refused(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    for array in (ramp, (ramp * 65535).astype(np.int32)):
        image = read_image(save(tmp_path / "a.tif", array), "a")
        assert image.min() == 0 and image.max() == 255 and abs(float(image.mean()) - 127.5) < 1
    for array in (ramp * 300, ramp - 1, np.full((20, 30), np.nan, np.float32), (ramp * 1e6).astype(np.int32)):
        with pytest.raises(DataError, match="the image holds"):
            read_image(save(tmp_path / "a.tif", array), "a")
