from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from datasetdm.errors import StoreError
from datasetdm.records import IGNORE, DepthMap, Instances, Keypoints, Labels, Sample, SemanticMap
from datasetdm.store import META, Store, Writer, write_store
from datasetdm.store.manifest import Manifest, shard_path, write_manifest
from datasetdm.store.rows import to_table
from datasetdm.store.schema import VERSION
from datasetdm.store.writer import write_parquet
from factory import LABELS, make_sample


@pytest.mark.parametrize("threaded", [0, 2**19], ids=["decoded in threads", "decoded in turn"])
def test_round_trip_keeps_everything(
    samples: list[Sample], threaded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasetdm.store.store.THREADED", threaded)
    write_store(samples, tmp_path / "s", LABELS, shard_size=5)
    store = Store(tmp_path / "s")
    assert len(store) == 12 and store.labels == LABELS
    for given, read in zip(samples, store, strict=True):
        assert read.digest() == given.digest()
        assert (read.key, replace(read.prompt, origin="user"), read.provenance) == (
            given.key,
            given.prompt,
            given.provenance,
        )
        assert read.keypoints.names == given.keypoints.names
    assert store[7].key == "s7"
    with pytest.raises(IndexError):
        store[12]


def test_rare_values_survive(tmp_path: Path) -> None:
    ids = np.array([[0, IGNORE], [2, 1]], np.uint16)
    far = DepthMap(np.array([[300.0, 2000.0], [0.5, 0]]), np.array([[True, True], [True, False]])).quantised()
    near = DepthMap(np.array([[0.25, 1.0], [0.5, 0]]), np.ones((2, 2), bool), "relative").quantised()
    image = np.zeros((2, 2, 3), np.uint8)
    rows = [Sample(k, image, LABELS, semantic=SemanticMap(ids), depth=d) for k, d in (("a", far), ("b", near))]
    rows.append(Sample("Ünïcode <b> name/with slash", image, LABELS))
    write_store(rows, tmp_path / "s", LABELS)
    assert [r.digest() for r in Store(tmp_path / "s")] == [r.digest() for r in rows]
    assert [r.key for r in Store(tmp_path / "s")] == [r.key for r in rows]


def test_depth_confidence_survives(samples: list[Sample], tmp_path: Path) -> None:
    depth = samples[0].depth
    sure = np.linspace(0, 1, depth.depth.size).reshape(depth.size)
    given = replace(samples[0], depth=DepthMap(depth.depth, depth.valid, "metre", sure))
    write_store([given, samples[1]], tmp_path / "s", LABELS)
    read = Store(tmp_path / "s")[0]
    assert read.digest() == given.digest()
    assert read.depth.confidence is not None and not read.depth.confidence[~depth.valid].any()


def test_interrupted_writing_gives_the_same_files(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples, tmp_path / "whole", LABELS, shard_size=5)
    stream = {"source": "samples"}
    for stop in (3, 5, 9, 12):
        with Writer(tmp_path / "parts", LABELS, stream, shard_size=5) as writer:
            for sample in samples[writer.written : stop]:
                writer.add(sample)
    for number in range(3):
        whole, parts = (shard_path(tmp_path / n, number).read_bytes() for n in ("whole", "parts"))
        assert whole == parts


def test_an_exception_loses_nothing_that_was_added(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path / "s", LABELS, {}, shard_size=5) as writer:
        for sample in samples[:7]:
            writer.add(sample)
        raise KeyboardInterrupt
    assert len(Store(tmp_path / "s")) == 7


def test_another_stream_is_refused(tmp_path: Path) -> None:
    Writer(tmp_path / "s", LABELS, {"seed": 1, "steps": 20}).flush()
    before = (tmp_path / "s" / META).read_bytes()
    with pytest.raises(StoreError, match="seed differs") as caught:
        Writer(tmp_path / "s", LABELS, {"seed": 2, "steps": 20})
    assert "seed = 1" in str(caught.value)
    assert (tmp_path / "s" / META).read_bytes() == before


def test_folders_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="no store"):
        Writer(tmp_path, LABELS, {})
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(StoreError, match="no store here"):
        Store(tmp_path)
    (tmp_path / META).write_text('{"format": "something"}')
    with pytest.raises(StoreError):
        Store(tmp_path)


def test_a_store_keeps_to_its_labels_and_is_written_once(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples[:2], tmp_path / "s", LABELS)
    with pytest.raises(StoreError, match="a store here already"):
        write_store(samples[:2], tmp_path / "s", LABELS)
    other = make_sample("o", labels=Labels(("a", "b", "c")))
    with pytest.raises(StoreError, match="other labels"):
        write_store([other], tmp_path / "t", LABELS)


def test_no_objects_no_keypoints(tmp_path: Path) -> None:
    sample = make_sample()
    h, w = sample.size
    objects = Instances.from_masks(np.zeros((0, h, w), bool), np.zeros(0, int))
    points = Keypoints(np.zeros((0, 0, 2)), np.zeros((0, 0)), ())
    empty = Sample("k", sample.image, LABELS, instances=objects, keypoints=points)
    write_store([empty], tmp_path / "s", LABELS)
    assert Store(tmp_path / "s")[0].digest() == empty.digest()


def test_leftovers_of_a_kill_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f".{META}.abc.tmp").write_text("{")
    assert write_store([make_sample()], tmp_path / "s", LABELS) == 1


def test_damaged_rows_and_meta(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples[:2], tmp_path / "s", LABELS)
    path = shard_path(tmp_path / "s", 0)
    rows = pq.read_table(path).to_pylist()
    rows[1]["image"]["bytes"] = b"no image"
    write_parquet(to_table(rows), path)
    write_manifest(path, Manifest.of_file(path, ["s0", "s1"]))
    with pytest.raises(StoreError, match="damaged"):
        list(Store(tmp_path / "s"))
    meta = json.loads((tmp_path / "s" / META).read_text())
    (tmp_path / "s" / META).write_text(json.dumps(meta | {"shard_size": "many"}))
    with pytest.raises(StoreError, match="cannot be read"):
        Store(tmp_path / "s")


def test_damage_is_found(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples, tmp_path / "s", LABELS, shard_size=5)
    second = shard_path(tmp_path / "s", 1)
    data = second.read_bytes()
    second.write_bytes(data[:-100])
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path / "s")
    second.unlink()
    with pytest.raises(StoreError, match="missing"):
        Store(tmp_path / "s")


def test_hugging_face_datasets_opens_it(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        write_store(samples, tmp_path / "s", LABELS, shard_size=5)
        files = sorted(map(str, (tmp_path / "s" / "data").glob("*.parquet")))
        table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    row = table[3]
    assert np.array_equal(np.asarray(row["image"]), samples[3].image)
    assert np.array_equal(np.asarray(row["semantic"]), samples[3].semantic.ids)
    steps = np.asarray(row["depth"]).astype(float) * row["depth_step"]
    assert np.allclose(steps, samples[3].depth.depth)
    assert row["prompt"] == "a photo of a dog" and row["prompt_labels"] == ["dog"]


def test_meta_is_readable_json(tmp_path: Path) -> None:
    write_store([make_sample()], tmp_path / "s", LABELS)
    meta = json.loads((tmp_path / "s" / META).read_text())
    assert meta["labels"]["names"] == list(LABELS.names) and meta["version"] == VERSION


def test_what_filters_ask_for_is_in_columns(tmp_path: Path) -> None:
    write_store([make_sample()], tmp_path / "s", LABELS)
    columns = ("found", "objects", "score")
    row = pq.read_table(shard_path(tmp_path / "s", 0), columns=list(columns)).to_pylist()[0]
    confidence = make_sample().semantic.confidence.astype(float).mean()
    assert row["found"] == ["sky", "dog", "grass"] and row["objects"] == ["dog"]
    assert row["score"] == pytest.approx(confidence, abs=1e-4)
