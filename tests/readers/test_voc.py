from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from datasetdm.readers.formats.voc import CLASSES, VOID
from datasetdm.readers.legend import voc_colours
from datasetdm.records import IGNORE
from labelled import VOC_XML, noise_image, save, voc_folder, write

REAL = os.environ.get("DATASETDM_REAL")


def test_colours_are_vocs() -> None:
    """Values that the development kit's colour map is known by."""
    known = {1: (128, 0, 0), 7: (128, 128, 128), 12: (64, 0, 128), 15: (192, 128, 128), 20: (0, 64, 128), 255: VOID}
    assert {i: voc_colours()[i] for i in known} == known
    assert len(set(voc_colours())) == 256 and len(CLASSES) == 20


def test_masks_and_objects(tmp_path: Path) -> None:
    (sample,) = read(f"voc:{voc_folder(tmp_path)}@train")
    names, ids = sample.labels.names, sample.semantic.ids
    assert len(names) == 21 and names[12] == "dog" and names[17] == "sheep"
    assert (ids[3:8, 2:8] == 12).all() and (ids[2, 2:8] == IGNORE).all() and ids[0, 0] == 0
    objects = sample.instances
    assert objects.label_ids.tolist() == [12, 17] and not objects.boxed
    assert objects.boxes.tolist() == [[2, 2, 6, 6], [10, 10, 10, 8]]
    assert sample.prompt is not None and sample.prompt.text == "a photo of a dog and a sheep"
    assert sample.labels.named_in("a television")[0] == "tvmonitor"


def test_palette_and_true_colours_are_the_same(tmp_path: Path) -> None:
    """The same masks as grey indices, palette indices and colours."""
    path = voc_folder(tmp_path) / "SegmentationClass" / "a.png"
    (first,) = read(f"voc:{tmp_path}@train")
    ids = first.semantic.ids
    values = np.where(ids == IGNORE, 255, ids).astype(np.uint8)
    table = np.array(voc_colours(), np.uint8)
    for array, palette in ((values, table), (table[values], None)):
        save(path, array, palette)
        (again,) = read(f"voc:{tmp_path}@train")
        assert again.digest() == first.digest()


def test_boxes_count_from_one(tmp_path: Path) -> None:
    """xmin 3 .. xmax 12 are ten pixels, the first of which is the third."""
    (sample,) = read(f"voc:{voc_folder(tmp_path)}@boxes")
    objects = sample.instances
    assert sample.key == "b" and objects.boxed and objects.boxes.tolist() == [[2, 3, 10, 7]]
    assert sample.semantic is None and sample.labels.names[objects.label_ids[0]] == "dog"


def test_zero_shot_halves(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    (seen,), (unseen,) = (read(f"voc:{tmp_path}@train+{half}") for half in ("seen", "unseen"))
    assert len(seen.labels) == 16 and len(unseen.labels) == 6
    for sample, name, other in ((seen, "dog", (12, 12)), (unseen, "sheep", (4, 4))):
        objects = sample.instances
        assert [sample.labels.names[i] for i in objects.label_ids] == [name]
        assert sample.semantic.ids[other] == IGNORE
    with pytest.raises(DataError, match="no half 'rare'"):
        read(f"voc:{tmp_path}@train+rare")


def test_labelmap_and_names_of_boxes(tmp_path: Path) -> None:
    """Other tools' data: a colour map of their own, or XML files alone."""
    folder = voc_folder(tmp_path / "a")
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:5] = 9, 8, 7
    save(folder / "SegmentationClass" / "a.png", colours)
    (folder / "SegmentationObject" / "a.png").unlink()
    write(folder / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:9,8,7::\n")
    (sample,) = read(f"voc:{folder}@train")
    assert sample.labels.names == ("background", "cup") and (sample.semantic.ids[:5] == 1).all()
    noise_image(tmp_path / "b" / "images" / "x.png")
    write(tmp_path / "b" / "Annotations" / "x.xml", VOC_XML.replace("dog", "teapot"))
    (sample,) = read(f"voc:{tmp_path / 'b'}")
    assert sample.labels.names == ("background", "teapot") and len(sample.instances) == 1


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("<name>dog</name>", "", "no name or bndbox"),
        ("<xmin>3</xmin>", "<xmin>three</xmin>", "no number"),
        ("<xmin>3</xmin>", "<xmin>nan</xmin>", "not finite"),
        ("<xmin>3</xmin>", "<xmin>13</xmin>", "no area"),
        ("<xmax>12", "<xmax>99", "lies outside"),
        ("<height>20", "<height>21", "said to have 30x21"),
        ("</annotation>", "", "cannot be read"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "dog">]><annotation>', "without entities|cannot be read"),
        ("<annotation>", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation>', "cannot be read"),
    ],
)
def test_bad_xml_is_refused(old: str, new: str, what: str, tmp_path: Path) -> None:
    write(voc_folder(tmp_path) / "Annotations" / "b.xml", VOC_XML.replace(old, new))
    with pytest.raises(DataError, match=what) as caught:
        read(f"voc:{tmp_path}@boxes")
    assert "b.xml" in str(caught.value)


def test_names_with_spaces_and_suffixes_in_capitals(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path)
    (folder / "JPEGImages" / "b.jpg").rename(folder / "JPEGImages" / "b 1.Jpg")
    (folder / "Annotations" / "b.xml").rename(folder / "Annotations" / "b 1.XML")
    for line in ("b 1\r\n", "b 1  1\n", "a -1\nb 1 0\n"):
        write(folder / "ImageSets" / "Main" / "boxes.txt", line.replace("b 1\r", "b 1 1\r"))
        assert [s.key for s in read(f"voc:{folder}@boxes")] == ["b 1"]
    mask = folder / "SegmentationClass" / "a.png"
    mask.rename(mask.with_suffix(".PNG"))
    assert next(iter(read(f"voc:{folder}@train"))).semantic is not None
    mask.with_suffix(".PNG").unlink()
    noise_image(mask.with_suffix(".jpg"))
    with pytest.raises(DataError, match="is a JPEG"):
        list(read(f"voc:{folder}@train"))


def test_a_box_a_little_outside_is_clipped(tmp_path: Path) -> None:
    write(voc_folder(tmp_path) / "Annotations" / "b.xml", VOC_XML.replace("<xmax>12", "<xmax>31.4"))
    (sample,) = read(f"voc:{tmp_path}@boxes")
    assert sample.instances.boxes.tolist() == [[2, 3, 28, 7]]


def test_bad_masks_and_lists_are_refused(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path)
    with pytest.raises(DataError, match="no split 'vall'"):
        read(f"voc:{folder}@vall")
    for text, what in (
        ("a\na\n", "two images are called 'a'"),
        ("../a\n", "leaves its folder"),
        ("", "lists no images"),
    ):
        write(folder / "ImageSets" / "Segmentation" / "bad.txt", text)
        with pytest.raises(DataError, match=what):
            read(f"voc:{folder}@bad")
    write(folder / "ImageSets" / "Segmentation" / "bad.txt", "c\n")
    with pytest.raises(DataError, match="missing"):
        read(f"voc:{folder}@bad")
    objects = np.ones((20, 30), np.uint8)
    save(folder / "SegmentationObject" / "a.png", objects)
    with pytest.raises(DataError, match="object 1 has pixels of: background, dog, sheep"):
        list(read(f"voc:{folder}@train"))
    save(folder / "SegmentationClass" / "a.png", objects + 20)
    with pytest.raises(DataError, match="600 pixels of unknown classes: 21"):
        list(read(f"voc:{folder}@train"))
    save(folder / "SegmentationClass" / "a.png", np.full((20, 30, 3), 77, np.uint8))
    with pytest.raises(DataError, match=r"\(77, 77, 77\)"):
        list(read(f"voc:{folder}@train"))


@pytest.mark.skipif(not REAL, reason="DATASETDM_REAL names no folder of real files")
def test_real_voc_folders() -> None:
    root = Path(str(REAL)) / "fixtures" / "voc_dataset"
    (masked,) = read(f"voc:{root / 'voc_dataset1'}@train")
    (boxed,) = read(f"voc:{root / 'voc_dataset3'}@train")
    assert masked.labels.names[masked.instances.label_ids[0]] == "bicycle"  # (0, 128, 0)
    assert boxed.instances.boxed and len(boxed.instances) > 0


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_xml_with_spaces_and_decimals_in_its_declared_encoding(encoding: str, tmp_path: Path) -> None:
    file = voc_folder(tmp_path) / "Annotations" / "b.xml"
    declared = {"utf-8-sig": "utf-8"}.get(encoding, encoding)
    text = file.read_text().replace("<width>30<", "<width> 30.0 <").replace("<name>dog<", "<name> dog <")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n' + text.replace(
        "<object>", "<owner>J\u00f6rg</owner><object>"
    )
    file.write_bytes(text.encode(encoding))
    (sample,) = read(f"voc:{tmp_path}@boxes")
    assert len(sample.instances) == 1
    file.write_bytes(text.replace("30.0", "31.0").encode(encoding))
    with pytest.raises(DataError, match=r"31\.0x20 pixels"):
        read(f"voc:{tmp_path}@boxes")
