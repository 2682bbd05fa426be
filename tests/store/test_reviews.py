from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasetdm.cli import main
from datasetdm.errors import ConfigError, DataError, StoreError
from datasetdm.exporters import export
from datasetdm.records import IGNORE, Instances, Sample, SemanticMap
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import REVIEWS, Review, append_review, read_reviews
from factory import LABELS, make_sample


@pytest.fixture
def store(samples: list[Sample], tmp_path: Path) -> Store:
    write_store(samples, tmp_path / "store", LABELS, shard_size=5)
    return Store(tmp_path / "store")


def coco(folder: Path) -> dict:
    return json.loads((folder / "annotations" / "instances.json").read_text())


def test_export_leaves_out_what_is_rejected_and_fixes_labels(store: Store, tmp_path: Path) -> None:
    append_review(store.folder, Review("s3", "reject", "wrong mask"))
    append_review(store.folder, Review("s4", "reject"))
    append_review(store.folder, Review("s4", "accept"))  # the last counts
    append_review(store.folder, Review("s5", objects={0: "sky"}))
    assert export(store, "coco", tmp_path / "coco") == 11
    content = coco(tmp_path / "coco")
    names = {i["id"]: i["file_name"] for i in content["images"]}
    categories = {c["id"]: c["name"] for c in content["categories"]}
    found = {names[a["image_id"]]: categories[a["category_id"]] for a in content["annotations"]}
    assert found == {f"s{i}.png": "sky" if i == 5 else "dog" for i in range(12) if i != 3}


def test_export_command_says_what_it_left_out(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_review(store.folder, Review("s0", "reject"))
    append_review(store.folder, Review("s1", "accept", labels={"sky": "grass"}))
    main_code = 0
    try:
        main(["export", str(store.folder), "--out", str(tmp_path / "coco")])
    except SystemExit as e:
        main_code = int(e.code or 0)
    assert main_code == 0 and len(coco(tmp_path / "coco")["images"]) == 11
    assert "1 rejected are left out, 1 with fixed labels" in " ".join(capsys.readouterr().err.split())


def test_a_region_and_all_its_objects_get_another_label() -> None:
    sample = make_sample()
    fixed = Review("a", labels={"dog": "sky"}).apply(sample)
    before, after = sample.semantic, fixed.semantic
    assert isinstance(before, SemanticMap) and isinstance(after, SemanticMap)
    assert np.array_equal(after.ids, np.where(before.ids == 1, 0, before.ids))
    assert np.array_equal(after.confidence, before.confidence)
    assert fixed.instances.label_ids.tolist() == [0]
    assert fixed.image is sample.image and fixed.depth is sample.depth


def test_labels_can_change_places() -> None:
    sample = make_sample()
    swap = Review("a", labels={"dog": "sky", "sky": "dog"})
    ids = swap.apply(sample).semantic.ids
    assert not np.array_equal(ids, sample.semantic.ids)
    assert swap.apply(swap.apply(sample)).digest() == sample.digest()


def test_an_object_takes_its_pixels_along_and_goes_before_its_region() -> None:
    ids = np.full((4, 6), 1, np.uint16)
    ids[0] = IGNORE
    ids[3] = 0
    left = np.zeros((4, 6), bool)
    left[:, :3] = True
    objects = Instances.from_masks(np.stack([left, ~left]), np.array([1, 1]))
    sample = Sample("k", np.zeros((4, 6, 3), np.uint8), LABELS, semantic=SemanticMap(ids), instances=objects)
    fixed = Review("k", labels={"dog": "sky"}, objects={1: "grass"}).apply(sample)
    expected = np.array([[IGNORE] * 6, [0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2], [0] * 6])
    assert fixed.semantic.ids.tolist() == expected.tolist()
    assert fixed.instances.label_ids.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("review", "error", "words"),
    [
        (Review("a", labels={"dig": "sky"}), ConfigError, "did you mean 'dog'"),
        (Review("a", labels={"dog": "skyy"}), ConfigError, "did you mean 'sky'"),
        (Review("a", objects={0: "nothing"}), ConfigError, "unknown label"),
        (Review("a", objects={1: "dog"}), DataError, "object 1 is not there"),
    ],
)
def test_fixes_that_cannot_be(review: Review, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        review.apply(make_sample())


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
REVIEW = st.builds(
    Review,
    TEXTS,
    st.sampled_from(["", "accept", "reject"]),
    TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.dictionaries(st.integers(0, 99), TEXTS, max_size=3),
)


@settings(max_examples=25)  # every review is synchronised with the disk
@given(st.lists(REVIEW, max_size=6), st.integers(0, 200))
def test_reviews_come_back_and_a_torn_line_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, said: list[Review], torn: int
) -> None:
    folder = tmp_path_factory.mktemp("reviews")
    for review in said:
        append_review(folder, review)
    expected = {r.key: r for r in said}
    assert read_reviews(folder) == expected
    whole = (folder / REVIEWS).read_bytes() if said else b""
    (folder / REVIEWS).write_bytes(whole + b'{"key": "never finished", "verdict": "rej'[:torn])
    assert read_reviews(folder) == expected
    append_review(folder, Review("next", "accept"))
    assert read_reviews(folder) == expected | {"next": Review("next", "accept")}


def test_a_last_line_written_by_hand_counts(tmp_path: Path) -> None:
    (tmp_path / REVIEWS).write_text('{"key": "a", "verdict": "reject"}')
    assert read_reviews(tmp_path)["a"].verdict == "reject"
    append_review(tmp_path, Review("b"))
    assert set(read_reviews(tmp_path)) == {"a", "b"}


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"key": 3}',
        '{"key": "a", "verdict": "maybe"}',
        '{"key": "a", "objects": {"x": "dog"}}',
        '{"key": "a", "labels": ["dog"]}',
        '{"key": "a", "labels": {"dog": 3}}',
    ],
)
def test_a_line_that_is_no_review_is_an_error_that_names_it(tmp_path: Path, line: str) -> None:
    append_review(tmp_path, Review("a"))
    with (tmp_path / REVIEWS).open("a") as f:
        f.write(line + "\n")
    with pytest.raises(StoreError, match="a review cannot be read") as caught:
        read_reviews(tmp_path)
    assert str(caught.value.where).endswith(f"{REVIEWS}:2")


@pytest.mark.slow
def test_two_processes_append_at_once_and_lose_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from datasetdm.store.reviews import Review, append_review
for i in range(40):
    append_review(Path(sys.argv[1]), Review(f"{sys.argv[2]}{i}", "reject", "x" * 5000))
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [p.wait(100) for p in running] == [0, 0]
    assert set(read_reviews(tmp_path)) == {f"{name}{i}" for name in "ab" for i in range(40)}
