"""Depth in the conventions of NYU, KITTI and Virtual KITTI."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasetdm.errors import ConfigError, DataError
from datasetdm.readers import read
from datasetdm.records import IGNORE
from factory import known
from labelled import depth_folder, masks_folder, noise_image, save, vkitti_folder, write


@pytest.mark.parametrize(
    ("format", "image", "depth", "metres"),
    [
        ("nyu", "x/rgb_00045.jpg", "x/sync_depth_00045.png", 1.5),
        ("nyu", "00001_colors.png", "00001_depth.png", 1.5),
        ("nyu", "rgb/a/1.png", "depth/a/1.png", 1.5),
        ("kitti", "image/d_image_05_image_02.png", "groundtruth_depth/d_groundtruth_depth_05_image_02.png", 5.859375),
        ("kitti", "images/s 1.jpg", "depth/s 1.png", 5.859375),
    ],
)  # fmt: skip
def test_sixteen_bits_are_metres(format: str, image: str, depth: str, metres: float, tmp_path: Path) -> None:
    (sample,) = read(f"{format}:{depth_folder(tmp_path, image, depth)}")
    record = sample.depth
    assert np.allclose(record.depth[1:], metres) and record.valid[1:].all() and not record.valid[0].any()
    assert record.unit == "metre" and known(sample) == ["depth"]
    (tmp_path / depth).unlink()
    with pytest.raises(DataError, match="label file is missing"):
        read(f"{format}:{tmp_path}")


def test_kitti_drives_with_raw_images(tmp_path: Path) -> None:
    drive = "2011_09_26_drive_0002_sync"
    depth_folder(
        tmp_path,
        f"raw/2011_09_26/{drive}/image_02/data/0000000005.png",
        f"train/{drive}/proj_depth/groundtruth/image_02/0000000005.png",
    )
    (sample,) = read(f"kitti:{tmp_path / 'train'}", tmp_path / "raw")
    assert sample.key == f"{drive}/image_02/0000000005" and sample.depth.depth[5, 5] == 1500 / 256
    with pytest.raises(DataError, match="no annotated drives"):
        read(f"kitti:{tmp_path / 'raw'}", tmp_path / "raw")


def test_folders_without_depth(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    for format in ("nyu", "kitti", "vkitti"):
        with pytest.raises(DataError, match="no images with labels"):
            read(f"{format}:{tmp_path}")


def nyu_mat(path: Path, labels: np.ndarray) -> Path:
    """Two images of 5 x 7 pixels as MATLAB stores them: axes reversed, names as references."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as f:
        f["images"] = rng.integers(0, 255, (2, 3, 7, 5), dtype=np.uint8)
        f["depths"] = np.arange(70, dtype=np.float32).reshape(2, 7, 5)
        f["labels"] = labels.astype(np.uint16)
        refs = []
        for name in ("wall", "night stand"):
            f[f"#refs#/{name}"] = np.array([[ord(c)] for c in name], np.uint16)
            refs.append([f[f"#refs#/{name}"].ref])
        f.create_dataset("names", data=np.array(refs, h5py.ref_dtype), dtype=h5py.ref_dtype)
    return path


def test_nyu_labelled_set(tmp_path: Path) -> None:
    labels = np.zeros((2, 7, 5), np.uint16)
    labels[0, 3:, 1] = 2
    first, second = read(f"nyu:{nyu_mat(tmp_path / 'nyu.mat', labels)}")
    assert first.labels.names == ("wall", "night stand") and first.size == (5, 7)
    ids = first.semantic.ids
    assert (ids[1, 3:] == 1).all() and ids[0, 0] == IGNORE and (second.semantic.ids == IGNORE).all()
    assert first.depth.depth[2, 3] == 3 * 5 + 2 and not first.depth.valid[0, 0]
    labels[:] = 3
    with pytest.raises(DataError, match="label 3 has no name"):
        list(read(f"nyu:{nyu_mat(tmp_path / 'bad.mat', labels)}"))
    write(tmp_path / "text.mat", "no HDF5")
    with pytest.raises(DataError, match="cannot be read"):
        read(f"nyu:{tmp_path / 'text.mat'}")


def test_nyu_h5_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "1.h5", "w") as f:
        f["rgb"], f["depth"] = np.zeros((3, 5, 7), np.uint8), np.full((5, 7), 2.5)
    (sample,) = read(f"nyu:{tmp_path}")
    assert sample.size == (5, 7) and (sample.depth.depth == 2.5).all()
    with h5py.File(tmp_path / "2.h5", "w") as f:
        f["rgb"], f["depth"] = np.zeros((3, 5, 7), np.uint8), np.full((5, 7), -1.0)
    assert len(list(read(f"nyu:{tmp_path}", on_error="skip"))) == 1
    with h5py.File(tmp_path / "3.h5", "w") as f:
        f["rgb"] = np.zeros((3, 5, 7), np.uint8)
    with pytest.raises(DataError, match="no array depth"):
        read(f"nyu:{tmp_path}")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = builtins.__import__

    def absent(name: str, *arguments: Any) -> Any:
        if name in ("h5py", "datasets"):
            raise ImportError(name)
        return known(name, *arguments)

    write(tmp_path / "1.h5", "")
    monkeypatch.setattr(builtins, "__import__", absent)
    for data, extra in ((f"nyu:{tmp_path}", "nyu"), (f"hf:{tmp_path}", "hf")):
        with pytest.raises(ConfigError) as caught:
            read(data)
        assert f"datasetdm[{extra}]" in str(caught.value)


# ---------------------------------------------------------------------- Virtual KITTI 2
def test_vkitti(tmp_path: Path) -> None:
    (sample,) = read(f"vkitti:{vkitti_folder(tmp_path)}")
    depth, ids, objects = sample.depth, sample.semantic, sample.instances
    names = sample.labels.names
    assert np.allclose(depth.depth[8:], 12.34) and not depth.valid[:8].any()
    assert names[ids.ids[0, 0]] == "Sky" and names[ids.ids[19, 0]] == "Road"
    assert [names[i] for i in objects.label_ids] == ["Car"] and objects.boxes.tolist() == [[5, 10, 10, 4]]


def test_vkitti_archives_side_by_side(tmp_path: Path) -> None:
    scene = vkitti_folder(tmp_path / "all") / "Scene01"
    for folder in ("rgb", "depth"):
        target = tmp_path / "split" / f"vkitti_2.0.3_{folder}" / "Scene01" / "clone" / "frames"
        target.mkdir(parents=True)
        (scene / "clone" / "frames" / folder).rename(target / folder)
    (sample,) = read(f"vkitti:{tmp_path / 'split'}")
    assert known(sample) == ["depth"]


def test_vkitti_refuses(tmp_path: Path) -> None:
    clone = vkitti_folder(tmp_path) / "Scene01" / "clone"
    write(clone / "colors.txt", "Category r g b\nRoad 100 60 100\nSky 90 200 255\nCar 1 2 3\nUndefined 0 0 0\n")
    with pytest.raises(DataError, match=r"40 pixels of unknown classes: \(255, 127, 80\)"):
        list(read(f"vkitti:{tmp_path}"))
    write(clone / "colors.txt", "Category r g b\nRoad 100 60\n")
    with pytest.raises(DataError, match="no class and colour"):
        list(read(f"vkitti:{tmp_path}"))
    (clone / "colors.txt").unlink()
    save(clone / "frames" / "instanceSegmentation" / "Camera_0" / "instancegt_00001.png", np.ones((20, 30), np.uint8))
    with pytest.raises(DataError, match="mostly Road"):
        list(read(f"vkitti:{tmp_path}"))


# ---------------------------------------------------------------------- depth/ beside masks
METRES = np.full((20, 30), 2.5, np.float32)
METRES[0], METRES[1], METRES[2] = 0, np.nan, 1e10  # all of them unknown


def write_depth(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
        with exr.File({"type": exr.scanlineimage}, {"Z": np.ascontiguousarray(values)}) as file:
            file.write(str(path))
    else:
        save(path, values)


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".exr"])
def test_depth_of_floats(suffix: str, tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    path = folder / "depth" / f"a{suffix}"
    write_depth(path, METRES)
    first, second = read(f"masks:{folder}")
    assert first.depth.unit == "metre" and first.depth.valid.sum() == 17 * 30 and first.depth.depth[3, 0] == 2.5
    assert known(second) == ["semantic"]
    write_depth(path, METRES[:, :5])
    with pytest.raises(DataError, match="5x20 pixels"):
        list(read(f"masks:{folder}"))
    write_depth(path, METRES * 1000)
    with pytest.raises(DataError, match="millimetres stored as metres"):
        list(read(f"masks:{folder}"))
    write(folder / "depth.json", {"unit": "millimetre"})
    assert next(iter(read(f"masks:{folder}"))).depth.depth[3, 0] == np.float32(2.5)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        list(read(f"masks:{folder}"))


def test_depth_with_a_stated_unit(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    save_steps = lambda value: save(folder / "depth" / "a.png", np.full((20, 30), value, np.uint16))  # noqa: E731
    save_steps(3)
    with pytest.raises(DataError, match="metres stored as millimetres") as caught:
        list(read(f"masks:{folder}"))
    assert "depth.json" in str(caught.value)
    for content, value, depth in (
        ({"unit": "metre"}, 3, 3.0),
        ({"unit": "centimetre"}, 250, 2.5),
        ({"metres_per_step": 0.00390625}, 512, 2.0),
        ({"unit": "relative"}, 65535, 1.0),
    ):
        save_steps(value)
        write(folder / "depth.json", content)
        first = next(iter(read(f"masks:{folder}")))
        assert np.allclose(first.depth.depth, depth) and (first.depth.unit == "relative") == (
            "relative" in str(content)
        )
    for content in (
        {"unit": "feet"},
        {},
        {"unit": "metre", "metres_per_step": 1},
        [],
        {"metres_per_step": float("nan")},
    ):
        write(folder / "depth.json", content)
        with pytest.raises(DataError, match="cannot be read|states no unit"):
            list(read(f"masks:{folder}"))
    (folder / "depth.json").unlink()
    np.save(folder / "depth" / "sub.npy", np.ones((20, 30), np.uint16))
    with pytest.raises(DataError, match="depth file has no image"):
        read(f"masks:{folder}")
    (folder / "depth" / "sub.npy").rename(folder / "depth" / "a.pfm")
    with pytest.raises(DataError, match=r"depth is no \.pfm"):
        read(f"masks:{folder}")


def test_images_and_depth_alone(tmp_path: Path) -> None:
    """As `export --format depth-npy` writes them."""
    noise_image(tmp_path / "images" / "a.png")
    write_depth(tmp_path / "depth" / "a.npy", METRES)
    write(tmp_path / "depth.json", {"unit": "metre", "unknown": 0})
    (sample,) = read(f"masks:{tmp_path}")
    assert known(sample) == ["depth"] and sample.labels.names == ("image",)


def test_depth_without_its_image_is_an_error(tmp_path: Path) -> None:
    depth_folder(tmp_path, "rgb/1.JPEG", "depth/1.png")
    assert len(list(read(f"nyu:{tmp_path}"))) == 1
    noise_image(tmp_path / "extra" / "x.png")
    assert "left out: 1" in read(f"nyu:{tmp_path}").source.notes[0]
    save(tmp_path / "depth" / "2.png", np.full((20, 30), 1500, np.uint16))
    with pytest.raises(DataError, match="belongs to no image"):
        read(f"nyu:{tmp_path}")


# ---------------------------------------------------------------------- damaged HDF5
def test_names_and_arrays_that_cannot_be_read(tmp_path: Path) -> None:
    path = nyu_mat(tmp_path / "nyu.mat", np.zeros((2, 7, 5), np.uint16))
    for change in (
        lambda f: f.create_dataset("names", data=np.zeros((2, 1), np.uint8)),
        lambda f: f.create_dataset("names", data=np.array([[h5py.Reference()]], h5py.ref_dtype), dtype=h5py.ref_dtype),
    ):
        with h5py.File(path, "a") as f:
            del f["names"]
            change(f)
        with pytest.raises(DataError, match="names cannot be read"):
            read(f"nyu:{path}")
    with h5py.File(tmp_path / "1.h5", "w") as f:
        f["rgb"] = np.zeros((3, 5, 7), np.uint8)
        f["depth"] = np.full((5, 7), "x", h5py.string_dtype())
    with h5py.File(tmp_path / "2.h5", "w") as f:
        f.create_dataset("rgb", (3, 10**6, 10**6), np.uint8, chunks=(3, 100, 100))
        f.create_dataset("depth", (10**6, 10**6), np.float32, chunks=(100, 100))
    for name, what in (("1", "depth"), ("2", "cannot be read")):
        only = tmp_path / f"only{name}"
        only.mkdir()
        (tmp_path / f"{name}.h5").rename(only / f"{name}.h5")
        with pytest.raises(DataError, match=what):
            list(read(f"nyu:{only}"))
