from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from datasetdm.cli import main
from datasetdm.errors import StoreError
from datasetdm.records import Labels, Quality, Sample
from datasetdm.records.edits import relabel
from datasetdm.store.manifest import shard_path
from datasetdm.store.merge import merge
from datasetdm.store.quality import append_quality
from datasetdm.store.reviews import Review, append_review, read_reviews
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer, write_store
from factory import LABELS, make_sample


@pytest.fixture
def parts(samples: list[Sample], tmp_path: Path) -> list[Store]:
    """Twelve samples in two stores, with shards of different sizes."""
    write_store(samples[:7], tmp_path / "a", LABELS, shard_size=3)
    write_store(samples[7:], tmp_path / "b", LABELS, shard_size=4)
    return [Store(tmp_path / "a"), Store(tmp_path / "b")]


def test_shards_are_taken_over_as_they_are(parts: list[Store], samples: list[Sample], tmp_path: Path) -> None:
    assert list(merge(parts, tmp_path / "all")) == [7, 12]
    store = Store(tmp_path / "all")
    assert [s.rows for s in store.shards] == [3, 3, 1, 4, 1]
    assert [(s.key, s.digest()) for s in store] == [(s.key, s.digest()) for s in samples]
    assert [store[i].key for i in (6, 0, 11, 7)] == ["s6", "s0", "s11", "s7"]
    originals = [s.path for part in parts for s in part.shards]
    assert [s.path.read_bytes() for s in store.shards] == [p.read_bytes() for p in originals]
    assert all(s.path.samefile(p) for s, p in zip(store.shards, originals, strict=True)), "one disk: hard links"
    assert store.stream == {"merged": [{"source": "samples"}] * 2}
    assert store.table(["key"], 5, 9)["key"].to_pylist() == ["s5", "s6", "s7", "s8"]


def test_what_is_merged_can_be_added_to_without_touching_its_sources(parts: list[Store], tmp_path: Path) -> None:
    before = [s.path.read_bytes() for part in parts for s in part.shards]
    for _ in merge(parts, tmp_path / "all"):
        pass
    for name in ("x", "y"):
        with Writer(tmp_path / "all", LABELS, Store(tmp_path / "all").stream) as writer:
            writer.add(make_sample(name))
    assert [s.rows for s in Store(tmp_path / "all").shards] == [3, 3, 1, 4, 1, 2]
    assert [s.path.read_bytes() for part in parts for s in part.shards] == before


def test_copies_where_there_are_no_links(parts: list[Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    assert list(merge(parts, tmp_path / "all"))[-1] == len(Store(tmp_path / "all")) == 12
    assert not shard_path(tmp_path / "all", 0).samefile(parts[0].shards[0].path)


def test_quality_and_reviews_come_along(parts: list[Store], tmp_path: Path) -> None:
    append_quality(parts[1].folder, "s9", Quality({"sharpness": 0.5}, ("blurred",)))
    append_review(parts[0].folder, Review("s1", "reject", "image"))
    append_review(parts[1].folder, Review("s8", "accept"))
    for _ in merge([Store(p.folder) for p in parts], tmp_path / "all"):
        pass
    assert [s.key for s in Store(tmp_path / "all") if not s.accepted] == ["s9"]
    assert {k: r.verdict for k, r in read_reviews(tmp_path / "all").items()} == {"s1": "reject", "s8": "accept"}


@pytest.mark.parametrize("prefix", [False, True])
def test_an_interrupted_merge_goes_on(parts: list[Store], samples: list[Sample], tmp_path: Path, prefix: bool) -> None:
    for _ in merge(parts, tmp_path / "whole", prefix):
        pass
    run = merge(parts, tmp_path / "all", prefix)
    next(run)
    run.close()
    assert len(Store(tmp_path / "all")) < 12
    assert list(merge(parts, tmp_path / "all", prefix))[-1] == 12
    whole, again = Store(tmp_path / "whole"), Store(tmp_path / "all")
    assert [(s.key, s.digest()) for s in again] == [(s.key, s.digest()) for s in whole]
    assert [s.digest() for s in again] == [s.digest() for s in samples]


def test_equal_keys_are_an_error_whose_remedy_works(parts: list[Store], tmp_path: Path) -> None:
    append_review(parts[0].folder, Review("s1", "reject"))
    twice = [parts[0], Store(tmp_path / "a")]
    write_store([replace(s, image=255 - s.image) for s in parts[0]], tmp_path / "c", LABELS)
    with pytest.raises(StoreError, match="two samples have the key 's0'") as caught:
        list(merge([*parts, twice[0]], tmp_path / "all"))
    assert "datasetdm merge --prefix-keys" in str(caught.value)
    with contextlib.suppress(SystemExit):
        main(["merge", str(tmp_path / "a"), str(tmp_path / "c"), "--out", str(tmp_path / "named"), "--prefix-keys"])
    keys = [s.key for s in Store(tmp_path / "named")]
    assert keys == [f"{n}-s{i}" for n in "ac" for i in range(7)] and set(read_reviews(tmp_path / "named")) == {"a-s1"}


def test_labels_in_another_order_are_brought_into_one(
    samples: list[Sample], parts: list[Store], tmp_path: Path
) -> None:
    other = Labels(("grass", "sky", "dog"), ((), (), ("puppy",)))
    write_store([relabel(s, other, (1, 2, 0)) for s in samples[7:]], tmp_path / "o", other)
    assert list(merge([parts[0], Store(tmp_path / "o")], tmp_path / "all"))[-1] == 12
    assert [s.digest() for s in Store(tmp_path / "all")] == [s.digest() for s in samples]


def test_labels_of_other_names_are_refused(parts: list[Store], tmp_path: Path) -> None:
    labels = Labels(("sky", "cat", "grass"))
    write_store([make_sample("k", labels=labels)], tmp_path / "o", labels)
    with pytest.raises(StoreError, match="different labels: 'cat'"):
        list(merge([parts[0], Store(tmp_path / "o")], tmp_path / "all"))
    with pytest.raises(StoreError, match="no store"):
        list(merge([], tmp_path / "all"))
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("prefix", [False, True])
def test_a_repeated_merge_adds_what_is_new_and_replaces_nothing(
    parts: list[Store], samples: list[Sample], tmp_path: Path, prefix: bool
) -> None:
    start = "a-" if prefix else ""
    append_review(parts[0].folder, Review("s1", "reject"))
    append_quality(parts[0].folder, "s2", Quality(reasons=("dark",)))
    list(merge([Store(p.folder) for p in parts], tmp_path / "all", prefix))
    append_review(tmp_path / "all", Review(start + "s1", "accept"))
    append_quality(tmp_path / "all", start + "s2", Quality(reasons=("empty",)))
    with Writer(parts[0].folder, LABELS, parts[0].stream) as writer:
        for name in ("x", "y", "z"):
            writer.add(make_sample(name))
    append_review(parts[0].folder, Review("x", "reject"))
    assert list(merge([Store(p.folder) for p in parts], tmp_path / "all", prefix))[-1] == 15
    again = Store(tmp_path / "all")
    expected = [*(("a", s.key) for s in samples[:7]), *(("b", s.key) for s in samples[7:]), *(("a", k) for k in "xyz")]
    assert [*again.keys()] == [f"{name}-{key}" if prefix else key for name, key in expected]
    verdicts = {k: r.verdict for k, r in read_reviews(again.folder).items()}
    assert verdicts == {start + "s1": "accept", start + "x": "reject"}
    assert again.quality[start + "s2"].reasons == ("empty",)
