"""Two at once, killed at any point, continued by key: the store is what an undisturbed writer would have made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasetdm.store.writer as writer_module
from datasetdm.errors import OutputError, StoreError
from datasetdm.records import Instances, Labels, MaskStack, Prompt, Quality, Sample
from datasetdm.store.keys import KeySet
from datasetdm.store.manifest import META, shard_path
from datasetdm.store.quality import append_quality
from datasetdm.store.store import Store
from datasetdm.store.writer import LOCK, Writer, write_store
from factory import LABELS, make_sample

STREAM = {"source": "samples"}


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a store that belongs to it, by its path."""
    own = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != LOCK]
    return {str(p.relative_to(folder)): p.read_bytes() for p in own}


def fill(folder: Path, samples: list[Sample], shard_size: int = 5) -> None:
    """Bring a store to these samples, by key."""
    with Writer(folder, LABELS, STREAM, shard_size) as writer:
        for sample in samples:
            if sample.key not in writer:
                writer.add(sample)


@pytest.mark.slow
def test_a_kill_between_any_two_steps_costs_nothing_that_was_flushed(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is copied before and after every step of every shard; each copy opens and goes on to the same files."""
    fill(tmp_path / "whole", samples)
    expected, held = files(tmp_path / "whole"), {s.key: s.digest() for s in samples}
    copies: list[Path] = []

    def watched(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> None:
            for call in (None, step):
                if call:
                    call(*arguments)
                copies.append(shutil.copytree(tmp_path / "s", tmp_path / f"copy{len(copies)}"))

        return run

    with monkeypatch.context() as patch:
        for name in ("announce", "write_manifest"):
            patch.setattr(writer_module, name, watched(getattr(writer_module, name)))
        with Writer(tmp_path / "s", LABELS, STREAM, 5) as writer:
            for i, sample in enumerate(samples):
                writer.add(sample)
                if i in (2, 6, 7):
                    writer.flush()
    assert len(copies) == 4 * 6, "three full or last shards, and three flushes"
    assert files(tmp_path / "s") == expected
    flushed = [0, 3, 5, 7, 8, 10]  # before each of the six times that a shard is written
    for n, copy in enumerate(copies):
        opened = Store(copy)
        assert all(s.digest() == held[s.key] for s in opened)
        assert [*opened.keys()] == [s.key for s in samples[: len(opened)]]
        assert len(opened) >= flushed[n // 4], f"copy {n} lost rows"
        fill(copy, samples)
        assert files(copy) == expected, f"copy {n} went on to other files"


KILLED = """
import sys, time, numpy as np
from datasetdm.records import Labels, Sample
from datasetdm.store.writer import Writer
noise = np.random.default_rng(0)
with Writer(sys.argv[1], Labels(("a",)), {"seed": 0}, 7) as writer:
    print("open", flush=True)
    for i in range(60):
        sample = Sample(f"{i:03d}", noise.integers(0, 255, (32, 32, 3), dtype=np.uint8), Labels(("a",)))
        if sample.key not in writer:
            writer.add(sample)
            writer.flush()
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, stdout=subprocess.DEVNULL, timeout=100)
    rng, sizes = np.random.default_rng(0), [0]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen([*command, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            time.sleep(float(rng.uniform(0, 0.1)))
            process.send_signal(number)
        sizes.append(len(Store(tmp_path / "s")))
    assert sizes == sorted(sizes)
    subprocess.run([*command, str(tmp_path / "s")], check=True, stdout=subprocess.DEVNULL, timeout=100)
    assert files(tmp_path / "s") == files(tmp_path / "whole")


def test_a_second_writer_is_told_who_holds_the_store(samples: list[Sample], tmp_path: Path) -> None:
    code = f"""
import sys
from datasetdm.errors import OutputError
from datasetdm.records import Labels
from datasetdm.store.writer import Writer
try:
    Writer(sys.argv[1], Labels({LABELS.names!r}, {LABELS.synonyms!r}), {STREAM!r})
except OutputError as e:
    print(e)
"""
    second = [sys.executable, "-c", code, str(tmp_path / "s")]
    with Writer(tmp_path / "s", LABELS, STREAM) as writer:
        writer.add(samples[0])
        done = subprocess.run(second, capture_output=True, text=True, check=True, timeout=100)
        assert "this store is being written by another process" in done.stdout
        assert f"process {os.getpid()} on " in done.stdout and "wait until it has ended" in done.stdout
        with pytest.raises(OutputError, match="another process"):
            Writer(tmp_path / "s", LABELS, STREAM)
        assert len(Store(tmp_path / "s")) == 0, "readers need no lock"
    assert len(Store(tmp_path / "s")) == 1
    assert not subprocess.run(second, capture_output=True, text=True, check=True, timeout=100).stdout


@pytest.mark.slow
def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    code = f"{KILLED}\n    import os; os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=100)
    assert done.returncode == -signal.SIGKILL
    with Writer(tmp_path / "s", Labels(("a",)), {"seed": 0}) as writer:
        assert writer.written == 60


def test_leftovers_of_a_killed_writer_are_removed(samples: list[Sample], tmp_path: Path) -> None:
    fill(tmp_path / "s", samples[:3])
    left = [tmp_path / "s" / f".{META}.abc.tmp", tmp_path / "s" / "data" / ".shard-000000.parquet.xyz.tmp"]
    for path in left:
        path.write_text("half")
    kept = tmp_path / "s" / "notes.tmp"
    kept.write_text("mine")
    fill(tmp_path / "s", samples[:4])
    assert not any(p.exists() for p in left) and kept.exists()


def test_it_goes_on_by_key(samples: list[Sample], tmp_path: Path) -> None:
    fill(tmp_path / "s", samples[2:5])
    fill(tmp_path / "s", samples[:6])
    assert [s.key for s in Store(tmp_path / "s")] == ["s2", "s3", "s4", "s0", "s1", "s5"]
    with Writer(tmp_path / "s", LABELS, STREAM) as writer:
        assert "s5" in writer and "s6" not in writer and "" not in writer
        with pytest.raises(StoreError, match="two samples have the key 's5'"):
            writer.add(samples[5])
    assert len(Store(tmp_path / "s")) == 6


def test_many_keys_are_all_known() -> None:
    keys = KeySet(f"old {i}" for i in range(1000))
    for i in range(10_000):
        keys.add(f"new {i}")
    assert all(f"new {i}" in keys for i in range(10_000)) and all(f"old {i}" in keys for i in range(1000))
    assert not any(f"other {i}" in keys for i in range(10_000))


def test_no_room_for_keys_is_an_error() -> None:
    keys = KeySet()
    keys._table.execute("PRAGMA max_page_count = 20")
    with pytest.raises(OutputError, match="the keys of the samples cannot be remembered"):
        for i in range(10_000):
            keys.add(f"key {i}")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"seed": 1}, {"seed": 2}, "seed = 1, as the store was begun, not 2"),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, "a.b.1.c = 2, as the store was begun, not 3"),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": None, "z": 0}}, "a.z = null, as the store was begun, not 0"),
        ({"a": [1, 2]}, {"a": [1]}, r"a = \[1, 2\], as the store was begun, not \[1\]"),
        ({"a": {}}, {"a": 3}, "a = {}, as the store was begun, not 3"),
    ],
)
def test_another_stream_is_refused_with_the_first_difference(tmp_path: Path, old: dict, new: dict, words: str) -> None:
    Writer(tmp_path / "s", LABELS, old).close()
    with pytest.raises(StoreError, match=words):
        Writer(tmp_path / "s", LABELS, new)
    Writer(tmp_path / "s", LABELS, old).close()


def test_other_labels_are_refused(tmp_path: Path) -> None:
    Writer(tmp_path / "s", LABELS, STREAM).close()
    with pytest.raises(StoreError, match=r"labels\.names\.1 differs"):
        Writer(tmp_path / "s", Labels(("sky", "cat", "grass"), LABELS.synonyms), STREAM)


def test_a_store_keeps_its_own_shard_size(samples: list[Sample], tmp_path: Path) -> None:
    fill(tmp_path / "s", samples[:3], shard_size=2)
    fill(tmp_path / "s", samples, shard_size=99)
    assert [s.rows for s in Store(tmp_path / "s").shards] == [2] * 6


def test_everything_of_a_sample_comes_back(tmp_path: Path) -> None:
    sample = make_sample()
    boxes = np.array([[1.25, 2.5, 10.125, 4.0]])
    crowd = replace(sample.instances, boxes=boxes, crowd=np.array([True]), boxed=True)
    given = replace(
        sample,
        prompt=Prompt("two dogs", ("dog",), 2**63 - 1, "labels"),
        instances=crowd,
        quality=Quality({"sharpness": 0.25}, ("blurred", "dark")),
        split="val",
    )
    write_store([given], tmp_path / "s", LABELS)
    read = Store(tmp_path / "s")[0]
    assert read.digest() == given.digest() and read.instances.boxes.tolist() == boxes.tolist()
    assert read.instances.crowd.tolist() == [True] and read.instances.boxed
    assert (read.prompt, read.quality, read.split) == (given.prompt, given.quality, "val") and not read.accepted


def test_masks_of_a_large_image_never_become_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, labels = (1200, 1600), Labels(("a",))
    pixels = size[0] * size[1]
    masks = MaskStack([[1000 * i, 1000, pixels - 1000 * (i + 1)] for i in range(200)], size)
    sample = Sample("k", np.zeros((*size, 3), np.uint8), labels, instances=Instances(masks, np.zeros(200, int)))
    monkeypatch.setattr("datasetdm.records.objects.decode_runs", lambda *_: pytest.fail("a dense mask"))
    write_store([sample], tmp_path / "s", labels)
    assert Store(tmp_path / "s")[0].instances.masks == masks


def test_large_images_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "GROUP_BYTES", 6000)  # two images of 24 x 32
    given = [make_sample(f"k{i}", seed=i) for i in range(5)]
    write_store(given, tmp_path / "s", LABELS)
    store = Store(tmp_path / "s")
    with store.shards[0].opened() as (file, _):
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 1]
    assert [store[i].digest() for i in (4, 0, 3, 1, 2)] == [given[i].digest() for i in (4, 0, 3, 1, 2)]
    assert [s.digest() for s in store] == [s.digest() for s in given]


def test_a_reader_sees_whole_rows_while_a_writer_goes_on(samples: list[Sample], tmp_path: Path) -> None:
    known = {s.key: s.digest() for s in samples}
    fill(tmp_path / "s", samples[:1])
    first = Store(tmp_path / "s")
    problems: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                store = Store(tmp_path / "s")
                assert [known[s.key] for s in store] == [s.digest() for s in store]
        except BaseException as e:
            problems.append(e)

    reader = threading.Thread(target=look)
    reader.start()
    with Writer(tmp_path / "s", LABELS, STREAM) as writer:
        for sample in samples[1:]:
            writer.add(sample)
            writer.flush()
    done.set()
    reader.join()
    assert not problems
    assert [s.key for s in first] == ["s0"] and list(first.keys()) == ["s0"], (
        "a store shows what was there at the start"
    )


def test_no_shard_is_written_after_one_that_failed(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = writer_module.write_parquet

    def full(table: Any, path: Path) -> None:
        if "shard-000001" in path.name:
            raise OSError(28, "No space left on device")
        whole(table, path)

    monkeypatch.setattr(writer_module, "write_parquet", full)
    with pytest.raises(OutputError, match="the disk is full"):
        fill(tmp_path / "s", samples, shard_size=2)
    monkeypatch.undo()
    assert [s.key for s in Store(tmp_path / "s")] == ["s0", "s1"]
    assert not shard_path(tmp_path / "s", 2).exists()
    fill(tmp_path / "s", samples, shard_size=2)
    assert [s.key for s in Store(tmp_path / "s")] == [s.key for s in samples]


def test_rows_are_set_aside_without_rewriting(samples: list[Sample], tmp_path: Path) -> None:
    fill(tmp_path / "s", samples)
    before = files(tmp_path / "s")
    with Writer(tmp_path / "s", LABELS, STREAM) as writer:
        writer.set_aside(samples[3], "blurred")
        append_quality(writer.folder, "s4", Quality({"sharpness": 0.75}))
        with pytest.raises(StoreError, match="no sample has the key 'nobody'"):
            writer.set_aside(replace(samples[3], key="nobody"), "blurred")
    store = Store(tmp_path / "s")
    assert {s.key: s.quality.reasons for s in store if not s.accepted} == {"s3": ("blurred",)}
    assert store[3].quality.reasons == ("blurred",) and store[4].quality.scores == {"sharpness": 0.75}
    assert store.table(["quality_reasons"], 2, 5)["quality_reasons"].to_pylist() == [[], ["blurred"], []]
    after = files(tmp_path / "s")
    assert {name: after[name] for name in before} == before and set(after) - set(before) == {"quality.jsonl"}


def test_a_second_reason_joins_the_first(samples: list[Sample], tmp_path: Path) -> None:
    fill(tmp_path / "s", samples[:1])
    for reasons in (["blurred", "dark"], ["empty"]):
        with Writer(tmp_path / "s", LABELS, STREAM) as writer:
            for reason in reasons:
                writer.set_aside(samples[0], reason)
    assert Store(tmp_path / "s")[0].quality.reasons == ("blurred", "dark", "empty")


def test_a_sample_that_cannot_be_encoded_costs_no_other(samples: list[Sample], tmp_path: Path) -> None:
    with Writer(tmp_path / "s", LABELS, STREAM) as writer:
        writer.add(samples[0])
        with pytest.raises(TypeError):
            writer.add(replace(samples[1], split=3))
        assert writer.written == 1 and "s1" not in writer
        writer.add(samples[1])
    assert [s.digest() for s in Store(tmp_path / "s")] == [s.digest() for s in samples[:2]]


def test_a_shard_is_full_of_bytes_too(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = writer_module.to_table([writer_module.to_row(samples[0])]).nbytes
    monkeypatch.setattr(writer_module, "SHARD_BYTES", int(2.5 * size))
    fill(tmp_path / "whole", samples, shard_size=99)
    assert 4 <= len(Store(tmp_path / "whole").shards) < len(samples)
    for n in range(1, len(samples) + 1):
        fill(tmp_path / "s", samples[:n], shard_size=99)
    assert files(tmp_path / "s") == files(tmp_path / "whole")
