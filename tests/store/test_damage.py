"""Files that changed after they were written: found, or without effect on any label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datasetdm.errors import StoreError
from datasetdm.records import Sample
from datasetdm.store.manifest import META, manifest_path, read_meta, shard_path
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer, write_store
from factory import LABELS

Content = list[tuple[str, str]]


def content(folder: Path) -> Content:
    """Every key and label that can be read, in both ways of reading."""
    store = Store(folder)
    rows = [(s.key, s.digest()) for s in store]
    assert [(store[i].key, store[i].digest()) for i in range(len(store))] == rows
    assert list(store.keys()) == store.table(["key"])["key"].to_pylist() == [key for key, _ in rows]
    return rows


@pytest.fixture
def folder(samples: list[Sample], tmp_path: Path) -> Path:
    write_store(samples[:4], tmp_path / "s", LABELS, shard_size=2)
    return tmp_path / "s"


@pytest.mark.parametrize("place", ["shard", "manifest", "meta"])
def test_no_flipped_bit_changes_a_label_in_silence(folder: Path, place: str) -> None:
    path = {"shard": shard_path(folder, 0), "manifest": manifest_path(shard_path(folder, 0)), "meta": folder / META}[
        place
    ]
    original, expected = path.read_bytes(), content(folder)
    bits = 8 * len(original)
    footer = range(bits - 8 * 300, bits, 41) if place == "shard" else range(0)
    found = unharmed = 0
    for bit in [*range(0, bits, max(1, bits // 150)), *footer]:
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert content(folder) == expected, f"bit {bit} of {place} changed labels in silence"
            unharmed += 1
        except StoreError:
            found += 1
    assert found > 10 * unharmed, (found, unharmed)


def test_a_shard_in_the_place_of_another_is_found(folder: Path) -> None:
    first, second = shard_path(folder, 0), shard_path(folder, 1)
    content_of_first = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content_of_first)
    with pytest.raises(StoreError, match="damaged"):
        Store(folder)


def test_missing_files_are_found(samples: list[Sample], tmp_path: Path) -> None:
    for number, part in enumerate(("shard", "manifest")):
        for shard in (0, 1):
            folder = tmp_path / f"{number}{shard}"
            write_store(samples[:4], folder, LABELS, shard_size=2)
            path = shard_path(folder, shard)
            (path if part == "shard" else manifest_path(path)).unlink()
            with pytest.raises(StoreError, match="missing"):
                Store(folder)
    folder = tmp_path / "both"
    write_store(samples[:4], folder, LABELS, shard_size=2)
    shard_path(folder, 0).unlink()
    manifest_path(shard_path(folder, 0)).unlink()
    with pytest.raises(StoreError, match="missing"):
        Store(folder)


def test_what_the_remedy_says_works(samples: list[Sample], tmp_path: Path) -> None:
    write_store(samples[:6], tmp_path / "whole", LABELS, shard_size=2)
    write_store(samples[:6], tmp_path / "s", LABELS, shard_size=2)
    for number in (1, 2):
        shard_path(tmp_path / "s", number).unlink()
        manifest_path(shard_path(tmp_path / "s", number)).unlink()
    with Writer(tmp_path / "s", LABELS, {"source": "samples"}) as writer:
        for sample in samples[writer.written : 6]:
            writer.add(sample)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_labels_that_changed_places_are_found_and_a_wanted_change_is_possible(folder: Path) -> None:
    meta = json.loads((folder / META).read_text())
    meta["labels"]["names"] = ["dog", "sky", "grass"]
    (folder / META).write_text(json.dumps(meta))
    with pytest.raises(StoreError, match="changed or damaged") as caught:
        Store(folder)
    assert 'delete its line "checksum"' in str(caught.value)
    del meta["checksum"]
    (folder / META).write_text(json.dumps(meta))
    assert Store(folder).labels.names == ("dog", "sky", "grass")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "", "\udcff", '{"format": "datasetdm-store"}']
)
def test_files_that_are_no_store(tmp_path: Path, text: str) -> None:
    (tmp_path / META).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StoreError):
        read_meta(tmp_path)


def test_a_manifest_that_is_nested_too_deeply(folder: Path) -> None:
    manifest_path(shard_path(folder, 0)).write_text("[" * 100_000)
    with pytest.raises(StoreError, match="nested too deeply"):
        Store(folder)
