from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasetdm.errors import DataError
from datasetdm.readers import read
from labelled import hf_folder, picture


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bars, and a cache of its own."""
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def boxes(folder: Path, objects: Any, split: str = "train") -> Path:
    """A folder of Parquet with boxes of two classes."""
    data = {"image": [{"bytes": picture(folder.parent / "x.png").read_bytes(), "path": None}], "objects": [objects]}
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
    objects = sample.annotations["instance"]
    assert sample.labels.names == ("background", "dog", "cat") and objects.boxed
    assert objects.boxes.tolist() == [[2, 3, 10, 7]] and objects.label_ids.tolist() == [2]
    with pytest.raises(DataError, match="cannot be read|no split"):
        read(f"hf:{path}@val")


@pytest.mark.parametrize("box", [[2, 3, float("nan"), 7], [2, 3, 0, 0], [50, 3, 4, 4]])
def test_bad_boxes_are_refused(box: list[float], tmp_path: Path) -> None:
    path = boxes(tmp_path / "d", [{"bbox": box, "category": 1}])
    with pytest.raises(DataError, match="row 0|box"):
        list(read(f"hf:{path}"))


def test_masks_without_names_and_foreign_paths(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    (folder / "id2label.json").unlink()
    with pytest.raises(DataError, match="nothing says what"):
        read(f"hf:{folder}")
    outside = str(picture(tmp_path / "outside.png"))
    column = pa.array([{"bytes": None, "path": outside}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = pa.table({"image": column}).replace_schema_metadata({"huggingface": features})
    (tmp_path / "linked").mkdir()
    pq.write_table(table, tmp_path / "linked" / "train.parquet")
    with pytest.raises(DataError, match="leaves its folder"):
        list(read(f"hf:{tmp_path / 'linked'}"))


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    """`load_dataset`'s own image folder; nothing is annotated, and nothing is invented."""
    picture(tmp_path / "d" / "a.png")
    (sample,) = read(f"hf:{tmp_path / 'd'}")
    assert sample.size == (20, 30) and not sample.annotations and sample.prompt is None


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(f"hf:{tmp_path / 'nothing'}")
