from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasetdm.errors import DataError
from datasetdm.io.codecs import encode_png
from datasetdm.readers import read
from datasetdm.records import IGNORE
from factory import encode_rle
from labelled import hf_folder, noise_image, write


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bars, and a cache of its own."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def boxes(folder: Path, objects: Any, split: str = "train") -> Path:
    """A folder of Parquet with boxes of two classes."""
    data = {"image": [{"bytes": noise_image(folder.parent / "x.png").read_bytes(), "path": None}], "objects": [objects]}
    classes = datasets.ClassLabel(names=["dog", "cat"])
    struct = {"bbox": datasets.List(datasets.Value("float32"), 4), "category": classes}
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.List(struct)})
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(data, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def test_masks_saved_to_disk(tmp_path: Path) -> None:
    first, second = read(f"hf:{hf_folder(tmp_path)}")
    plain, _ = read(f"masks:{tmp_path / 'raw'}")
    assert first.digest() == plain.digest() and first.labels.names == ("wall", "tree")
    assert first.prompt is not None and first.prompt.text == "a tree at a wall" and second.prompt is None


def test_boxes_in_parquet(tmp_path: Path) -> None:
    path = boxes(tmp_path / "d", [{"bbox": [2, 3, 10, 7], "category": 1}])
    (sample,) = read(f"hf:{path}@train")
    objects = sample.instances
    assert sample.labels.names == ("background", "dog", "cat") and objects.boxed
    assert objects.boxes.tolist() == [[2, 3, 10, 7]] and objects.label_ids.tolist() == [2]
    with pytest.raises(DataError, match="cannot be read|no split"):
        read(f"hf:{path}@val")


@pytest.mark.parametrize("box", [[2, 3, float("nan"), 7], [2, 3, 0, 0], [50, 3, 4, 4]])
def test_bad_boxes_are_refused(box: list[float], tmp_path: Path) -> None:
    path = boxes(tmp_path / "d", [{"bbox": box, "category": 1}])
    with pytest.raises(DataError, match="bbox"):
        list(read(f"hf:{path}"))


def test_masks_depth_and_outlines_together(tmp_path: Path) -> None:
    """The columns that `export --format hf` writes: fields of objects as lists, RLE, 16-bit depth."""
    mask = np.zeros((20, 30), bool)
    mask[4:10, 4:8] = True
    ids, steps = np.where(mask, 1, 255).astype(np.uint8), np.where(mask, 512, 0).astype(np.uint16)
    outline = encode_rle(mask)["counts"]

    def folder(name: str, **objects: Any) -> Path:
        one = {"bytes": noise_image(tmp_path / "x.png").read_bytes(), "path": None}
        maps = {"semantic": encode_png(ids), "depth": encode_png(steps)}
        row: dict[str, Any] = {"key": "a/b", "image": one, "caption": "a dog"} | {
            k: {"bytes": v, "path": None} for k, v in maps.items()
        }
        row["objects"] = {"bbox": [[4, 4, 4, 6]], "category": [1], "segmentation": [outline]} | objects
        label = datasets.List(datasets.ClassLabel(names=["cat", "dog"]))
        struct = {"bbox": datasets.List(datasets.List(datasets.Value("float32"))), "category": label}
        features = dict.fromkeys(("image", "semantic", "depth"), datasets.Image()) | dict.fromkeys(
            ("key", "caption"), datasets.Value("string")
        )
        struct["segmentation"] = datasets.List(datasets.Value("string"))
        whole = datasets.Features(features | {"objects": struct})
        (tmp_path / name).mkdir()
        datasets.Dataset.from_list([row], features=whole).to_parquet(str(tmp_path / name / "train.parquet"))
        return write(tmp_path / name / "classes.json", {"cat": 0, "dog": 1, "ignore": 255}).parent

    (sample,) = read(f"hf:{folder('a')}")
    objects, depth = sample.instances, sample.depth
    assert sample.key == "a/b" and sample.labels.names == ("cat", "dog") and objects.label_ids.tolist() == [1]
    assert np.array_equal(objects.masks[0], mask) and not objects.boxed
    assert np.array_equal(sample.semantic.ids, np.where(mask, 1, IGNORE))
    assert np.array_equal(depth.valid, mask) and (depth.depth[mask] == 2).all()
    (boxed,) = read(f"hf:{folder('b', segmentation=[''])}")
    assert boxed.instances.boxed and boxed.instances.boxes.tolist() == [[4, 4, 4, 6]]
    for name, wrong, what in (
        ("c", {"segmentation": ["zz"]}, "do not fill"),
        ("d", {"category": []}, "differ in length"),
    ):
        with pytest.raises(DataError, match=what):
            list(read(f"hf:{folder(name, **wrong)}"))


def test_masks_without_names_and_foreign_paths(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    (folder / "id2label.json").unlink()
    with pytest.raises(DataError, match="nothing says what"):
        read(f"hf:{folder}")
    outside = str(noise_image(tmp_path / "outside.png"))
    column = pa.array([{"bytes": None, "path": outside}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = pa.table({"image": column}).replace_schema_metadata({"huggingface": features})
    (tmp_path / "linked").mkdir()
    pq.write_table(table, tmp_path / "linked" / "train.parquet")
    with pytest.raises(DataError, match="leaves its folder"):
        list(read(f"hf:{tmp_path / 'linked'}"))


def test_a_folder_of_images(tmp_path: Path) -> None:
    """`load_dataset`'s own image folder; nothing is annotated, and nothing is invented."""
    noise_image(tmp_path / "d" / "a.png")
    (sample,) = read(f"hf:{tmp_path / 'd'}")
    assert sample.size == (20, 30) and not sample.annotated and sample.prompt is None


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(f"hf:{tmp_path / 'nothing'}")


@pytest.mark.parametrize(("field", "values"), [("category", [1, 0]), ("categories", [1, 0]), ("label", ["dog", "cat"])])
def test_classes_as_words_or_plain_numbers(field: str, values: list[Any], tmp_path: Path) -> None:
    """As image folders with metadata.jsonl have them; numbers without names are an error, and never nothing."""
    noise_image(tmp_path / "data" / "train" / "1.png")
    row = {"file_name": "1.png", "objects": {"bbox": [[5, 5, 10, 10], [1, 1, 4, 4]], field: values}}
    write(tmp_path / "data" / "train" / "metadata.jsonl", json.dumps(row) + "\n")
    if isinstance(values[0], int):
        with pytest.raises(DataError, match="nothing names them"):
            read(f"hf:{tmp_path / 'data'}")
        write(tmp_path / "data" / "classes.json", ["cat", "dog"])
    (sample,) = read(f"hf:{tmp_path / 'data'}")
    assert [sample.labels.names[i] for i in sample.instances.label_ids] == ["dog", "cat"]


def test_a_damaged_offset_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """One changed byte of an Arrow file's offsets sends whoever follows them out of the memory."""
    folder = hf_folder(tmp_path)
    file = next(folder.glob("*.arrow"))
    data = file.read_bytes()
    offsets = np.array([0, len((tmp_path / "raw" / "images" / "a.jpg").read_bytes())], np.int32).tobytes()
    assert data.count(offsets) == 1
    file.write_bytes(data.replace(offsets, np.array([0, 2**31 - 1], np.int32).tobytes()))
    with pytest.raises(DataError, match="damaged"):
        read(f"hf:{folder}")


def test_a_dataset_that_was_saved_with_a_format_is_read_as_without(tmp_path: Path) -> None:
    """A format may hide columns from whoever opens the dataset."""
    folder = hf_folder(tmp_path)
    plain = [s.digest() for s in read(f"hf:{folder}")]
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_format_columns": ["image"], "_format_type": "numpy"}))
    assert [s.digest() for s in read(f"hf:{folder}")] == plain


@pytest.mark.parametrize(
    "columns",
    [
        {"objects": [{"boxes": [[5, 5, 9, 9]], "labels": ["dog"]}]},
        {"bboxes": [[[5, 5, 9, 9]]]},
        {"annotations": [[{"box": [5, 5, 9, 9], "name": "dog"}]]},
        {"mask": [[[0, 1], [1, 0]]]},
        {"segmentation": [b"0123"]},
    ],
)
def test_labels_of_an_unknown_shape_are_an_error(columns: dict[str, Any], tmp_path: Path) -> None:
    image = {"bytes": noise_image(tmp_path / "x.png").read_bytes(), "path": None}
    data = datasets.Dataset.from_dict({"image": [image], **columns}).cast_column("image", datasets.Image())
    data.save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="unknown shape") as caught:
        read(f"hf:{tmp_path / 'd'}")
    assert next(iter(columns)) in str(caught.value)


def test_columns_that_are_not_read_are_noted(tmp_path: Path) -> None:
    """A class of the whole image is no annotation that can be read."""
    image = {"bytes": noise_image(tmp_path / "x.png").read_bytes(), "path": None}
    data = datasets.Dataset.from_dict({"image": [image], "label": ["dog"], "source": ["x"]})
    data.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "d"))
    assert read(f"hf:{tmp_path / 'd'}").source.notes == ["columns that are not read: label, source"]


@pytest.mark.parametrize("objects", [[], [{"bbox": [1, 1, 5, 5], "category": None}]])
def test_boxes_without_a_class_in_any_image_are_an_error(objects: list[Any], tmp_path: Path) -> None:
    struct = {"bbox": datasets.List(datasets.Value("float32")), "category": datasets.Value("string")}
    image = {"bytes": noise_image(tmp_path / "x.png").read_bytes(), "path": None}
    features = datasets.Features({"image": datasets.Image(), "objects": datasets.List(struct)})
    datasets.Dataset.from_dict({"image": [image], "objects": [objects]}, features).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="no image has an object|are empty"):
        read(f"hf:{tmp_path / 'd'}")


def test_a_binary_mask_of_255_is_no_empty_mask(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9] = 255
    data = datasets.load_from_disk(str(folder)).cast_column("mask", datasets.Image(decode=False))
    assert isinstance(data, datasets.Dataset)
    whole = data.map(lambda _: {"mask": {"bytes": encode_png(mask), "path": None}})
    whole.cast_column("mask", datasets.Image()).save_to_disk(str(tmp_path / "d"))
    write(tmp_path / "d" / "id2label.json", {"0": "wall", "1": "tree"})
    with pytest.raises(DataError, match="hold 255, which has no name"):
        read(f"hf:{tmp_path / 'd'}")
