"""A store that an older version of the software wrote (`data/version2`: three samples, shards of two rows)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from datasetdm.errors import StoreError
from datasetdm.exporters import export
from datasetdm.store.manifest import META
from datasetdm.store.merge import merge
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer
from factory import LABELS, make_sample

OLD = Path(__file__).parent / "data" / "version2"


def test_it_opens_with_all_its_labels() -> None:
    store = Store(OLD)
    expected = [make_sample(f"s{i}", seed=i) for i in range(3)]
    assert [s.digest() for s in store] == [s.digest() for s in expected] == [store[i].digest() for i in range(3)]
    assert list(store.keys()) == ["s0", "s1", "s2"]
    assert store.stream == {"prompts": {"count": 1, "sha256": "0"}, "seed": 7, "batch": 3}
    first = store[0]
    assert first.prompt is not None and first.prompt.origin == "unknown" and first.prompt.labels == ("dog",)
    assert first.split == "" and first.accepted and not first.quality.scores
    assert store.table(["key", "quality_reasons"], 1, 3).to_pylist() == [
        {"key": "s1", "quality_reasons": []},
        {"key": "s2", "quality_reasons": []},
    ]


def test_it_is_exported(tmp_path: Path) -> None:
    assert export(OLD, "coco", tmp_path / "coco") == 3


def test_it_is_not_continued(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    with pytest.raises(StoreError, match="format version 2: it can be read, exported and viewed, but not continued"):
        Writer(tmp_path / "old", LABELS, Store(OLD).stream)
    assert len(Store(tmp_path / "old")) == 3


def test_a_merged_store_holds_its_shards_as_they_are(tmp_path: Path) -> None:
    assert list(merge([Store(OLD)], tmp_path / "new")) == [3]
    new = Store(tmp_path / "new")
    assert [s.digest() for s in new] == [s.digest() for s in Store(OLD)]
    for number in range(2):
        name = f"data/shard-{number:06d}.parquet"
        assert (tmp_path / "new" / name).read_bytes() == (OLD / name).read_bytes()
    with Writer(tmp_path / "new", LABELS, new.stream) as writer:
        writer.add(make_sample("another"))
    assert [s.key for s in Store(tmp_path / "new")] == ["s0", "s1", "s2", "another"]


def test_label_names_that_changed_places_are_found(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    meta = json.loads((OLD / META).read_text())
    meta["labels"]["names"] = ["grass", "dog", "sky"]
    (tmp_path / "old" / META).write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="the labels of sample 's0' are not those that it was written with"):
        list(Store(tmp_path / "old"))


@pytest.mark.parametrize(("version", "words"), [(1, "an older format"), (4, "a newer format")])
def test_versions_that_are_not_known(tmp_path: Path, version: int, words: str) -> None:
    meta = json.loads((OLD / META).read_text()) | {"version": version}
    (tmp_path / META).write_text(json.dumps(meta))
    with pytest.raises(StoreError, match=words):
        Store(tmp_path)
