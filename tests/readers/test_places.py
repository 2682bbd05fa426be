"""Which files belong to a data set: one rule for all formats."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from datasetdm.readers.places import files_in, images_in
from labelled import masks_folder, noise_image, voc_folder, yolo_folder


def test_what_tools_leave_behind_is_no_data(tmp_path: Path) -> None:
    folder = masks_folder(tmp_path)
    for name in (
        "._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "__MACOSX/images/._a.jpg",
        "@eaDir/a.jpg",
        ".DS_Store",
    ):
        for place in ("images", "masks"):
            path = (folder / place / name).with_suffix(".png" if place == "masks" else Path(name).suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0\5\26\7")
    assert [s.key for s in read(f"masks:{folder}")] == ["a", "sub/b b"]
    assert [s.key for s in read(f"images:{folder / 'images'}")] == ["a.jpg", "sub/b b.png"]


def test_linked_folders_and_files_are_read_once(tmp_path: Path) -> None:
    """A link to a folder elsewhere belongs to the data; a link to a folder above ends nowhere."""
    elsewhere = noise_image(tmp_path / "elsewhere" / "x" / "b.png").parent
    folder = noise_image(tmp_path / "data" / "a.png").parent
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "c.png").symlink_to(elsewhere / "b.png")
    assert [s.key for s in read(f"images:{folder}")] == ["a.png", "c.png", "linked/b.png"]


@pytest.mark.parametrize("suffix", [".JPG", ".Jpeg", ".jfif", ".PNG", ".webp", ".BMP", ".tif", ".TIFF", ".gif", ".jp2"])
def test_suffixes_in_any_case(suffix: str, tmp_path: Path) -> None:
    path = noise_image(tmp_path / f"an image{suffix}")
    assert images_in(tmp_path) == [path] and len(list(read(f"images:{tmp_path}"))) == 1


def test_voc_finds_capital_suffixes(tmp_path: Path) -> None:
    image = voc_folder(tmp_path) / "JPEGImages" / "a.jpg"
    image.rename(image.with_suffix(".JPG"))
    assert len(list(read(f"voc:{tmp_path}"))) == 1


def test_a_pipe_and_a_dangling_link_are_refused_at_once(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.5").parent / "images" / "train"
    os.mkfifo(folder / "p.png")
    with pytest.raises(DataError, match="device or a pipe"):
        files_in(folder, ".png")
    (folder / "p.png").unlink()
    (folder / "p.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match="missing"):
        read(f"yolo:{tmp_path / 'data.yaml'}")


def test_images_of_kinds_that_are_not_read_are_mentioned(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    for name in ("b.HEIC", "c.heic", "d.dng"):
        (tmp_path / name).write_bytes(b"x")
    assert read(f"images:{tmp_path}").source.notes == [
        f"images of kinds that are not read: 2 .heic, 1 .dng ({tmp_path})"
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"no images of a kind that is read, but 2 \.heic"):
        read(f"images:{tmp_path}")


def test_a_name_that_is_not_utf8_is_one_bad_image(tmp_path: Path) -> None:
    noise_image(tmp_path / "a.png")
    os.link(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    with pytest.raises(DataError, match="name is not UTF-8") as caught:
        read(f"images:{tmp_path}")
    assert "caf\\xe9.png" in str(caught.value) and "rename" in str(caught.value)
    reader = read(f"images:{tmp_path}", on_error="skip")
    assert [s.key for s in reader] == ["a.png"] and len(reader.skipped) == 1
