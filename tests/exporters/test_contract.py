"""What every exporter promises; a new one is in the table and so in these tests."""

from __future__ import annotations

import gc
import json
import resource
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import datasetdm
from datasetdm.errors import DataError, OutputError
from datasetdm.exporters import EXPORTERS, export, iter_export
from datasetdm.exporters.provenance import PROVENANCE
from datasetdm.records import (
    IGNORE,
    Annotations,
    DepthMap,
    Instances,
    Keypoints,
    Labels,
    MaskStack,
    Prompt,
    Provenance,
    Sample,
    SemanticMap,
    Skeleton,
)
from datasetdm.records.objects import encode_runs
from datasetdm.store import Review, Writer, append_review
from datasetdm.transforms import Transform
from datasetdm.transforms.split import Split
from datasetdm.transforms.threshold import FilterByScore
from factory import make_sample

NAMES = ("sky & <i>", 'h\u00fcnd <script>alert("1")</script>', "gr|a`ss [x](y)")
LABELS = Labels(NAMES, (), NAMES[::2], {NAMES[1]: Skeleton(("nose <b>", "t\u00e4il"), ((0, 1),))})
KEYS = ("../../evil", "a/b", "<b>&amp;", "\u00fcn\u00ef c\u00f6de", "x.y")


@pytest.fixture(params=sorted(EXPORTERS))
def format(request: pytest.FixtureRequest) -> str:
    return request.param


def awkward(key: str, size: tuple[int, int] = (24, 32)) -> Sample:
    sample = make_sample(key, size, labels=LABELS)
    return replace(sample, prompt=Prompt('<img onerror="x"> & "quotes"\n---\n| a', (NAMES[1],), 1))


def run(samples: list[Sample], format: str, out: Path, *transforms: Transform) -> int:
    return sum(1 for _ in iter_export(samples, LABELS, format, out, transforms))


def images(folder: Path) -> int:
    """How many images an export holds, whatever the format."""
    rows = sum(pq.read_metadata(p).num_rows for p in folder.rglob("*.parquet"))
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            rows += sum(n.endswith(".png") and n.count(".") == 1 for n in tar.getnames())
    homes = {"images", "image", "data", "JPEGImages"}
    return rows + sum(bool(homes & {*p.relative_to(folder).parts[:-1]}) for p in folder.rglob("*.png"))


def test_all_or_nothing(format: str, tmp_path: Path) -> None:
    samples = [awkward(k) for k in KEYS]
    assert run(samples, format, tmp_path / "out") == 5 == images(tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]

    def broken() -> Iterator[Sample]:
        yield samples[0]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        list(iter_export(broken(), LABELS, format, tmp_path / "half"))
    started: Any = iter_export(samples, LABELS, format, tmp_path / "half")
    next(started)
    started.close()
    with pytest.raises(DataError, match="two samples have the key 'x.y'"):
        run([samples[4], samples[4]], format, tmp_path / "twice")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="not empty"):
        run(samples, format, tmp_path / "out")


def test_the_same_samples_give_the_same_bytes(format: str, tmp_path: Path) -> None:
    if format == "depth-exr":
        pytest.skip("OpenEXR's own writer decides")
    for name in ("a", "b"):
        run([awkward(k) for k in KEYS], format, tmp_path / name, Split(parts={"train": 0.5, "val": 0.5}))
    a, b = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in (tmp_path / "a", tmp_path / "b")
    )
    assert a == b


def test_bare_and_odd_samples(format: str, tmp_path: Path) -> None:
    """No annotation at all, none of some tasks, empty ones, and sizes down to one pixel."""
    one = np.ones((1, 1), bool)
    empty = Annotations(
        semantic=SemanticMap(np.full((5, 3), IGNORE, np.uint16)),
        depth=DepthMap(np.zeros((5, 3)), np.zeros((5, 3), bool)),
        instances=Instances.none((5, 3)),
        keypoints=Keypoints(np.zeros((0, 0, 2)), np.zeros((0, 0)), ()),
    )
    samples = [
        Sample("bare", np.zeros((7, 1, 3), np.uint8), LABELS),
        Sample("empty", np.zeros((5, 3, 3), np.uint8), LABELS, **empty.fields()),
        Sample("one", np.zeros((1, 1, 3), np.uint8), LABELS, instances=Instances.from_masks(one[None], np.array([1]))),
        Sample("map", np.zeros((1, 1, 3), np.uint8), LABELS, semantic=SemanticMap(one.astype(np.uint16))),
        Sample("deep", np.zeros((1, 1, 3), np.uint8), LABELS, Prompt(""), depth=DepthMap(one * 1e6, one)),
    ]
    assert run(samples, format, tmp_path / "out") == 5 == images(tmp_path / "out")


def test_provenance(format: str, tmp_path: Path) -> None:
    """Every export says which stream, models and versions made it, and what was done since; not where it lay."""
    made = {"backbone": {"name": "some/model", "identity": "1" * 64, "licence": "openrail"}, "decoder": "2" * 64}
    with Writer(tmp_path / "store", LABELS, {"source": "generate", "seed": 3}, made=made) as writer:
        for i in range(3):
            who = Provenance(index=i, backbone="1" * 12, decoder="2" * 12)
            writer.add(replace(make_sample(f"s{i}", labels=LABELS), provenance=who))
    append_review(tmp_path / "store", Review("s0", "reject"))
    steps = [FilterByScore(minimum=0.5)]
    export(tmp_path / "store", format, tmp_path / "out", steps, licence="cc-by-4.0")
    text = (tmp_path / "out" / PROVENANCE).read_text()
    found = json.loads(text)
    assert found["stream"] == {"source": "generate", "seed": 3} and found["made"] == made
    assert (found["format"], found["images"], found["licence"]) == (format, 2, "cc-by-4.0")
    assert found["images_by_model"] == {"backbone": {"1" * 12: 2}, "decoder": {"2" * 12: 2}}
    assert [t["name"] for t in found["transforms"]] == ["apply-reviews", "filter-by-score"]
    assert found["exported_by"] == {"datasetdm": datasetdm.__version__} and str(tmp_path) not in text


def test_no_samples(format: str, tmp_path: Path) -> None:
    assert run([], format, tmp_path / "out") == 0 == images(tmp_path / "out")


@pytest.mark.slow
def test_memory_does_not_grow(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four times as many samples nothing is kept: fewer than three more objects in two samples live in Python's memory
    (buffers come and go by one in two), where the smallest row kept for the end would be four and more a sample."""
    monkeypatch.setattr(
        "datasetdm.exporters.ahead", lambda items, **_: items
    )  # the few samples ahead would blur the count
    sample = awkward("x", (4, 4))
    stream = (replace(sample, key=f"{i:05d}{'k' * 90}") for i in range(256))  # buffers of text fill soon
    at: dict[int, int] = {}
    for i, _ in enumerate(iter_export(stream, LABELS, format, tmp_path / "out"), 1):
        if i in (64, 256):
            gc.collect()
            at[i] = sys.getallocatedblocks()
    assert at[256] - at[64] < 192 * 3 / 2


def test_few_samples_are_taken_ahead(format: str, tmp_path: Path) -> None:
    taken: list[int] = []

    def stream() -> Iterator[Sample]:
        for i in range(40):
            taken.append(i)
            yield awkward(f"{i}", (4, 4))

    for done, _ in enumerate(iter_export(stream(), LABELS, format, tmp_path / "out"), 1):
        assert len(taken) <= done + 10


def test_splits(format: str, tmp_path: Path) -> None:
    """Every part is there, also one that stays empty."""
    split = Split(parts={"train": 0.6, "val": 0.4 - 1e-9, "rest": 1e-9})
    samples = [awkward(f"s{i}") for i in range(12)]
    assert run(samples, format, tmp_path / "out", split) == 12 == images(tmp_path / "out")


@pytest.mark.slow
def test_memory_does_not_grow_with_objects(format: str, tmp_path: Path) -> None:
    """Of 120 objects on one image never more than a few are dense at a time."""
    h, w = 300, 400
    y, x = np.ogrid[:h, :w]
    centres = [(37 * i % w, 53 * i % h) for i in range(120)]
    discs = MaskStack([encode_runs((x - a) ** 2 + (y - b) ** 2 < 15**2) for a, b in centres], (h, w))
    objects = Instances(discs, np.arange(120) % 3)
    sample = Sample("x", np.zeros((h, w, 3), np.uint8), LABELS, instances=objects)
    run([awkward("small", (4, 4))], format, tmp_path / "warm")  # what is imported then is not counted
    tracemalloc.start()
    try:
        run([sample], format, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * h * w, "bytes: twenty masks, of a hundred and twenty"


def test_a_full_disk_is_one_error(format: str, tmp_path: Path) -> None:
    samples = [replace(make_sample(f"s{i}", (60, 80), i, LABELS)) for i in range(30)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))  # as a disk that is full, for every file
    try:
        with pytest.raises(OutputError) as caught:
            run(samples, format, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "it goes on where it stopped" not in str(caught.value) and not list(tmp_path.iterdir())


def test_crowds_are_held_or_left_out(format: str, tmp_path: Path) -> None:
    """The pixels of a group are never one more object."""
    sample = make_sample("x", (24, 32), labels=LABELS)
    masks = np.zeros((2, 24, 32), bool)
    masks[0, 2:8, 2:9] = masks[1, 12:20, 3:30] = True
    objects = Instances.from_masks(masks, np.array([1, 1]), crowd=np.array([False, True]))
    keypoints = Keypoints(np.full((2, 2, 2), 5.0), np.full((2, 2), 2), (LABELS.skeletons[NAMES[1]].points,) * 2)
    given = replace(sample, instances=objects, keypoints=keypoints)
    alone = replace(given, instances=objects.take([0]), keypoints=keypoints.take([0]))
    for name, one in (("with", given), ("without", alone)):
        run([one], format, tmp_path / name)
    files = [
        {p.relative_to(f): p.read_bytes() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in (tmp_path / "with", tmp_path / "without")
    ]
    holds = {"coco", "coco-panoptic", "webdataset", "voc"}
    assert (files[0] != files[1]) == (format in holds) or format == "depth-exr"


def test_captions_from_the_true_labels_are_not_written(format: str, tmp_path: Path) -> None:
    sample = replace(make_sample("x", labels=LABELS), prompt=Prompt("UNMISTAKABLE", origin="labels"))
    run([sample], format, tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and b"UNMISTAKABLE" in p.read_bytes()]
