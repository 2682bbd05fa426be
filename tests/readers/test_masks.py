from __future__ import annotations

import json
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
from datasetdm.readers.depths import read_depth
from datasetdm.readers.maps import Palette, packed, read_map
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
        {"wall": 0.0, "tree": 1.0},
        {"0": "wall", "1": "tree", "255": "ignore"},
        {"wall": [0, 0, 0], "tree": [0, 128, 0], "ignore": [255, 255, 255]},
        {"wall": "#000000", "tree": "#008000", "ignore": ["#ffffff", [1, 2, 3]]},
    ],
)
def test_legends_say_the_same_in_many_ways(classes: dict[str, Any], tmp_path: Path) -> None:
    """Colours are looked up in true colours and in palette images alike."""
    folder = masks_folder(tmp_path, classes)
    if isinstance(classes.get("wall"), list | str):
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
        ({"wall": True}, "True is no value"),
        ({"wall": [True, False, 0]}, "no value or colour"),
        ({"wall": 1.5}, "1.5 is no value"),
        ({"wall": None}, "None is no value"),
        ({"9" * 5000: "wall"}, "names no classes"),
        ([["wall"]], "names no classes"),
        ([False, 0], "names no classes"),
        ("[" * 100_000, "no JSON"),
        (json.dumps(["\ud800"]), "cannot be written as UTF-8"),
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


def test_all_that_is_wrong_with_a_layout_is_said_at_once(tmp_path: Path) -> None:
    noise_image(tmp_path / "JPEGImages" / "a.jpg")
    write(tmp_path / "names.txt", "wall")
    with pytest.raises(DataError) as caught:
        read(f"masks:{tmp_path}")
    said = str(caught.value)
    assert all(w in said for w in ("classes.json", "images", "masks or annotations", "JPEGImages/, names.txt"))
    (masks_folder(tmp_path / "b") / "masks" / "a.png").rename(tmp_path / "b" / "masks" / "a_mask.png")
    shutil.rmtree(tmp_path / "b" / "masks" / "sub")
    with pytest.raises(DataError, match="no mask has the name of an image"):
        read(f"masks:{tmp_path / 'b'}")
    with pytest.raises(DataError, match="no such folder"):
        read(f"masks:{masks_folder(tmp_path / 'c')}@val")


@pytest.mark.parametrize("suffix", [".tif", ".PNG", ".bmp"])
def test_masks_in_other_files_than_png(suffix: str, tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    whole = [s.digest() for s in read(f"masks:{folder}")]
    path = folder / "masks" / "a.png"
    Image.open(path).save(path.with_suffix(suffix))
    path.unlink()
    assert [s.digest() for s in read(f"masks:{folder}")] == whole


@pytest.mark.parametrize("name", ["a.npy", "b.mat", "a.json", "a.jpg"])
def test_a_label_file_of_another_kind_is_an_error(name: str, tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    write(folder / "masks" / "classes.json", {})
    write(folder / "masks" / "readme.txt", "x")
    assert len(list(read(f"masks:{folder}"))) == 2
    if name == "a.jpg":
        (folder / "masks" / "a.png").unlink()
        noise_image(folder / "masks" / name)
    else:
        write(folder / "masks" / name, "x")
    with pytest.raises(DataError, match=r"a mask is no \.|is a JPEG"):
        list(read(f"masks:{folder}"))


def test_what_a_mask_hides_from_pillow_is_refused(tmp_path: Path) -> None:
    """16 bits per colour, of which 8 would be kept; and transparency alone that shows the object."""
    ids = np.zeros((20, 30), np.uint16)
    ids[5:9] = 5
    rows = b"".join(b"\0" + np.repeat(line[:, None], 3, 1).astype(">u2").tobytes() for line in ids)
    path = tmp_path / "m.png"
    write_png(path, rows, bits=16, colour=2)
    with pytest.raises(DataError, match="colours of 16 bits"):
        read_map(path, path, (20, 30))
    write_png(path, b"".join(b"\0" + np.repeat(line[:, None], 2, 1).astype(">u2").tobytes() for line in ids), 16, 4)
    with pytest.raises(DataError, match="colours of 16 bits"):
        read_map(path, path, (20, 30))
    hidden = np.zeros((20, 30, 4), np.uint8)
    hidden[5:9, :, 3] = 255
    save(path, hidden)
    with pytest.raises(DataError, match="transparency tells apart"):
        read_map(path, path, (20, 30))
    hidden[5:9, :, 0] = 7
    assert set(np.unique(read_map(save(path, hidden), path, (20, 30)))) == {0, 7}


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
    path = tmp_path / "m.png"
    write_png(path, packed_rows, bits, 0)
    assert np.array_equal(read_map(path, path, (20, 30)), values)


def write_png(path: Path, rows: bytes, bits: int, colour: int) -> None:
    """A PNG of 30 x 20 pixels from its rows, each with a filter byte; `colour` as in IHDR."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30, 20, bits, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


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
    for mode in ("RGB", "RGBA", "LA"):
        for path in masks:
            Image.fromarray(np.where(whole == 1, 255, 0).astype(np.uint8)).convert(mode).save(path)
        with pytest.raises(DataError, match="hold 255, which has no name"):
            read(f"masks:{folder}")
    write(folder / "classes.json", {"wall": 0, "tree": 255})
    assert {s.annotations.labels_in() == {0, 1} for s in read(f"masks:{folder}")} == {True}
    write(folder / "classes.json", {"wall": 0, "tree": 1, "ignore": 255})
    assert len(list(read(f"masks:{folder}"))) == 2
    write(folder / "classes.json", ["wall", "tree"])
    save(masks[1], whole)
    assert len(list(read(f"masks:{folder}"))) == 2


def test_float_images_are_scaled_or_refused(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    for array in (ramp, (ramp * 65535).astype(np.int32)):
        image = read_image(save(tmp_path / "a.tif", array), "a")
        assert image.min() == 0 and image.max() == 255 and abs(float(image.mean()) - 127.5) < 1
    for dark in (ramp / 20, (ramp * 4000).astype(np.uint16), (ramp * 255).astype(np.int32)):
        with pytest.raises(DataError, match="nearly black"):
            read_image(save(tmp_path / "a.tif", dark), "a")
    for array in (ramp * 300, ramp - 1, np.full((20, 30), np.nan, np.float32), (ramp * 1e6).astype(np.int32)):
        with pytest.raises(DataError, match="the image holds"):
            read_image(save(tmp_path / "a.tif", array), "a")
