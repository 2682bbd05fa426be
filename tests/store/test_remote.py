"""A store behind a URL holds what one in a folder holds, byte for byte, whatever its storage answers."""

from __future__ import annotations

import subprocess
import threading
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from benchmarks.storage import S3

import datasetdm.io.lease as lease_module
from datasetdm.engines import ray
from datasetdm.engines.cluster import Cluster
from datasetdm.errors import ConfigError, OutputError, RemoteError, StoreError
from datasetdm.io.lease import Lease, Owner, leased
from datasetdm.io.remote import Place, RemotePath, as_place
from datasetdm.records import Quality, Sample
from datasetdm.store import Review, Store, append_review, merge, read_reviews
from datasetdm.store.handover import (
    PARTS,
    PartWriter,
    adopt,
    discard,
    open_staged,
    part_file,
    remove_parts,
    staged_names,
)
from datasetdm.store.manifest import shard_path
from datasetdm.store.quality import append_quality
from datasetdm.store.store import ShardReplaced
from datasetdm.store.writer import LOCK, Writer
from engines.in_process import InProcess
from engines.shared import command, make_task, undisturbed
from factory import LABELS

STREAM = {"source": "samples"}

WORKERS = """
import sys
from pathlib import Path
from datasetdm.engines.cluster import Cluster
from datasetdm.engines.ray import iter_write
from engines.shared import make_task

for event in iter_write(make_task(Path(sys.argv[2]), 20), sys.argv[1], Cluster(workers=2), 20, 8):
    pass
print(event.held)
"""


def files(place: Place) -> dict[str, bytes]:
    """Every file below a place, by its path from there."""
    if isinstance(place, Path):
        return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file() and p.name != LOCK}
    return {name.removeprefix(f"{place.path}/"): place.fs.cat_file(name) for name in place.fs.find(place.path)}


def fill(place: Place, samples: list[Sample], shard_size: int = 5) -> None:
    """Bring a store to these samples, by key."""
    with Writer(place, LABELS, STREAM, shard_size) as writer:
        for sample in samples:
            if sample.key not in writer:
                writer.add(sample)


def bucket() -> RemotePath:
    """A place of its own on the S3 server."""
    return RemotePath.of(f"s3://bucket/{uuid.uuid4().hex}/store")


@pytest.fixture
def local(samples: list[Sample], tmp_path: Path) -> Path:
    """The store that nothing disturbed."""
    fill(tmp_path / "local", samples)
    return tmp_path / "local"


# ---------------------------------------------------------------------- the same store everywhere
def test_files_are_those_of_a_store_in_a_folder(place: Place, samples: list[Sample], local: Path) -> None:
    fill(place, samples[:7])
    fill(place, samples)
    assert files(place) == files(local)


def test_everything_that_is_read(place: Place, samples: list[Sample], local: Path) -> None:
    fill(place, samples)
    for folder in (place, local):
        append_quality(folder, "s3", Quality({"sharpness": 0.5}, ("blurred",)))
        append_quality(folder, "s3", Quality({"sharpness": 0.25}, ("blurred",)))
    far, near = Store(str(place)), Store(local)
    assert [s.digest() for s in far] == [s.digest() for s in samples] and list(far.keys()) == list(near.keys())
    assert far[7].digest() == samples[7].digest() and far.without_pixels(6).key == "s6"
    assert far.encoded(8).equals(near.encoded(8)) and far.filled() == near.filled() and far.row(9) == near.row(9)
    assert far.table(["key", "quality_scores"], 2, 11).equals(near.table(["key", "quality_scores"], 2, 11))
    assert dict(far.quality) == {"s3": Quality({"sharpness": 0.25}, ("blurred",))}


def test_no_review_is_lost_when_many_write_at_once(place: Place) -> None:
    fill(place, [])
    threads = [threading.Thread(target=append_review, args=(place, Review(f"s{i}", "reject"))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_reviews(place)) == [f"s{i}" for i in range(4)]


def test_merging_between_places(place: Place, samples: list[Sample], local: Path, tmp_path: Path) -> None:
    fill(place, samples[:6])
    fill(tmp_path / "rest", samples[6:])
    outs = (tmp_path / "merged", place.parent / "merged", as_place(f"memory://{uuid.uuid4().hex}"))
    for out in outs:
        assert list(merge([Store(place), Store(tmp_path / "rest")], out)) == [6, 12]
    assert [s.digest() for s in Store(outs[0])] == [s.digest() for s in samples]
    assert files(outs[0]) == files(outs[1]) == files(outs[2])


def test_another_stream_and_another_content_are_refused(place: Place, samples: list[Sample]) -> None:
    fill(place, samples[:1])
    with pytest.raises(StoreError, match="another stream"), Writer(place, LABELS, {"source": "others"}):
        pass
    stranger = place.parent / "stranger"
    (stranger / "notes.txt").write_bytes(b"mine")
    with pytest.raises(StoreError, match="no store"):
        fill(stranger, samples)
    with pytest.raises(StoreError, match="no store here"):
        Store(place.parent / "nothing")
    assert files(stranger) == {"notes.txt": b"mine"}


def test_urls(tmp_path: Path) -> None:
    assert as_place(f"file://{tmp_path}") == tmp_path and as_place("a:b/c") == Path("a:b/c")
    assert str(as_place("memory://a/b/")) == "memory:///a/b"
    with pytest.raises(ConfigError, match="no software for nothing://"):
        as_place("nothing://a/b")


# ---------------------------------------------------------------------- what workers write
def test_parts_become_shards(place: Place, samples: list[Sample], local: Path) -> None:
    """They are written in any order, by any process, without the store's lock, and one of them again."""
    fill(place, [])
    parts = {"b": samples[5:10], "c": samples[10:], "a": samples[:5]}
    for name, part in (*parts.items(), ("a", samples[:5])):
        writer = PartWriter(place, name)
        for sample in part:
            writer.add(sample)
        writer.finish({"name": name})
    part_file(place / PARTS, "unfinished", 0).write_bytes(b"half")
    assert staged_names(place) == {*parts} and open_staged(place, "unfinished") is None
    with Writer(place, LABELS, STREAM, 5) as writer:
        for name in sorted(parts):
            staged = open_staged(place, name)
            assert staged is not None and staged.about == {"name": name} and staged.rows == len(parts[name])
            adopt(writer, staged, ends=len(parts[name]) == 5)
        discard(place, ["a", "b"])
        assert staged_names(place) == {"c"}
        remove_parts(place)
    assert files(place) == files(local)


def test_no_part_is_written_beside_no_store(place: Place, samples: list[Sample]) -> None:
    writer = PartWriter(place, "a")
    writer.add(samples[0])
    with pytest.raises(OutputError, match="a worker cannot see the store"):
        writer.finish({})
    assert not files(place)


@pytest.mark.parametrize("fault", ["error", "truncate"])
def test_workers_fill_a_store(fault: str, s3: S3, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers end, samples fail, and of the storage's answers every fifth one."""
    monkeypatch.setattr(ray, "connected", InProcess().connected)
    place, task = bucket(), make_task(tmp_path / "tried", 12, {3: "kill1", 9: "error1"})
    requests, asked = iter(range(10**6)), "GET /bucket/" if fault == "truncate" else ""
    with (
        s3.failing(fault, lambda r: r.startswith(asked) and next(requests) % 5 == 0) as failed,
        closing(ray.iter_write(task, place, Cluster(workers=2), 12, 8)) as events,
    ):
        assert [event.held for event in events][-1] == 12
    assert len(failed) > 3 and files(place) == undisturbed(tmp_path, 12)


@pytest.mark.slow
def test_workers_with_processes_of_their_own_fill_a_store(s3: S3, tmp_path: Path) -> None:
    place = bucket()
    words, environment = command(WORKERS, place, tmp_path / "tried")
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "20\n", done.stdout + done.stderr
    assert files(place) == undisturbed(tmp_path, 20)


# ---------------------------------------------------------------------- kills and readers meanwhile
class Killed(Exception):
    """Ends a writer as a kill does."""


def test_a_kill_after_any_request_costs_nothing_that_was_flushed(
    samples: list[Sample], local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there after every request opens, and goes on to the same files."""
    place = as_place(f"memory://{uuid.uuid4().hex}")
    assert isinstance(place, RemotePath)
    states: list[dict[str, bytes]] = []
    for name in ("pipe_file", "put_file", "rm_file"):
        original = getattr(place.fs, name)

        def watched(*arguments: Any, original: Any = original, **options: Any) -> Any:
            found = original(*arguments, **options)
            states.append(files(place))
            return found

        monkeypatch.setattr(place.fs, name, watched)
    for count in (3, 7, 12):
        fill(place, samples[:count])
    monkeypatch.undo()
    digests = [s.digest() for s in samples]
    monkeypatch.setattr(lease_module, "EXPIRES", 0.0)
    for number, state in enumerate(states):
        copy = as_place(f"memory://{uuid.uuid4().hex}")
        for name, data in state.items():
            (copy / name).write_bytes(data)
        if "dataset.json" in state:
            assert [s.digest() for s in Store(copy)] == digests[: len(Store(copy))]
        if number % 3 == 0:
            fill(copy, samples)
            assert files(copy) == files(local), number
    assert len(states) > 20


def test_a_shard_that_is_replaced_while_it_is_read(
    place: Place, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader shows the rows that were there when it was opened."""
    monkeypatch.setattr("datasetdm.store.writer.GROUP_ROWS", 2)
    fill(place, samples[:4], 12)
    store = Store(place)
    reading = iter(store._groups())
    first = next(reading)
    fill(place, samples, 12)
    rows = [*first.rows, *(row for group in reading for row in group.rows)]
    assert [r["key"] for r in rows] == ["s0", "s1", "s2", "s3"] and store[3].digest() == samples[3].digest()
    with pytest.raises(ShardReplaced), store.shards[0].opened() as (file, _):
        fill(place.parent / "other", samples[:1], 12)
        for path in ("shard-000000.json", "shard-000000.parquet"):
            (place / "data" / path).write_bytes((place.parent / "other" / "data" / path).read_bytes())
        file.read_row_group(0)


# ---------------------------------------------------------------------- locks
def test_one_writer_at_a_time(place: Place, samples: list[Sample]) -> None:
    with (
        Writer(place, LABELS, STREAM) as writer,
        pytest.raises(OutputError, match="being written by another process") as caught,
    ):
        writer.add(samples[0])
        fill(place, samples)
    assert "process" in str(caught.value) and "is free in" in str(caught.value)
    fill(place, samples)
    assert not [name for name in files(place) if name.endswith(".lock")]


def test_of_many_at_once_one_gets_the_lock(place: Place) -> None:
    assert isinstance(place, RemotePath)
    held: list[int] = []
    starting, ending = threading.Barrier(5), threading.Barrier(5)

    def compete() -> None:
        starting.wait()
        try:
            with leased(place / LOCK, "store", renew=False):
                held.append(1)
                ending.wait()
        except OutputError:
            ending.wait()

    threads = [threading.Thread(target=compete) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held == [1]


def test_the_lock_of_a_dead_process_is_free_at_once_and_that_of_another_machine_expires(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = as_place(f"memory://{uuid.uuid4().hex}")
    lock = place.parent / place.name / ".store.000004.lock"
    lock.write_bytes(lease_module._encoded(Owner(process=2**22 + 1)))
    fill(place, samples[:1])
    lock.write_bytes(lease_module._encoded(Owner(machine="another")))
    with pytest.raises(OutputError, match="being written"):
        fill(place, samples[:2])
    monkeypatch.setattr(lease_module, "EXPIRES", 0.0)
    fill(place, samples[:2])
    assert len(Store(place)) == 2


def test_a_writer_that_lost_its_lock_writes_no_more(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """It slept too long, and another one has gone on."""
    place = as_place(f"memory://{uuid.uuid4().hex}")
    assert isinstance(place, RemotePath)
    with pytest.raises(OutputError, match="has taken over"), Writer(place, LABELS, STREAM, 5) as writer:
        monkeypatch.setattr(lease_module, "EXPIRES", 0.0)
        fill(place, samples[:5])
        written = files(place)
        for sample in samples[5:10]:
            writer.add(sample)
    assert {n: d for n, d in files(place).items() if not n.endswith(".lock")} == written


def test_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    place = as_place(f"memory://{uuid.uuid4().hex}")
    assert isinstance(place, RemotePath)
    monkeypatch.setattr(lease_module, "RENEWED", 0.01)
    renewed = threading.Event()
    original = Lease._renew
    monkeypatch.setattr(Lease, "_renew", lambda lease: (original(lease), renewed.set()))
    with leased(place / LOCK, "store") as lease:
        began = lease.owner.seen
        assert renewed.wait(5)
    assert lease.owner.seen > began and not files(place)


# ---------------------------------------------------------------------- faults of the storage
@pytest.mark.parametrize("fault", ["error", "throttle", "truncate", "corrupt", "slow"])
def test_answers_that_fail_now_and_then_change_nothing(
    fault: str, s3: S3, samples: list[Sample], tmp_path: Path, quick: None
) -> None:
    """Every third request fails once."""
    place, count = bucket(), iter(range(10**6))
    reading = fault in ("truncate", "corrupt")
    with s3.failing(fault, lambda r: (r.startswith("GET /bucket/") or not reading) and next(count) % 3 == 0) as failed:
        fill(place, samples[:4], 2)
        assert [s.digest() for s in Store(place)] == [s.digest() for s in samples[:4]]
    fill(tmp_path / "four", samples[:4], 2)
    assert len(failed) > 5 and files(place) == files(tmp_path / "four")


STEPS = [("PUT", "dataset.json"), ("PUT", ".parquet"), ("PUT", "shard-000001.json"), ("PUT", ".lock")]
"""Method and a part of the address of some requests of one writing."""


@pytest.mark.parametrize(("method", "part"), STEPS)
def test_storage_that_goes_on_failing_is_one_error_and_nothing_is_half_written(
    method: str, part: str, s3: S3, samples: list[Sample], local: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket()
    with (
        s3.failing("error", lambda r: r.startswith(method) and part in r) as failed,
        pytest.raises(RemoteError, match="no good answer after 5 tries") as caught,
    ):
        fill(place, samples)
    assert len(failed) >= 5 and "s3://bucket/" in str(caught.value.where)
    if "dataset.json" in files(place):
        assert [s.key for s in Store(place)] == [s.key for s in samples[: len(Store(place))]]
    fill(place, samples)
    assert files(place) == files(local)


def test_damage_that_stays_is_found_and_said(s3: S3, samples: list[Sample], quick: None) -> None:
    place = bucket()
    fill(place, samples)
    corrupted = s3.failing("corrupt", lambda r: r.startswith("GET") and r.endswith(".parquet"))
    with corrupted, pytest.raises(StoreError, match="a shard is damaged"):
        Store(place)
    whole = shard_path(place, 0)
    data = whole.read_bytes()
    whole.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(StoreError, match="its checksum differs"):
        list(Store(place))
    whole.unlink()
    with pytest.raises(StoreError, match="a shard is missing"):
        Store(place)


def test_places_that_cannot_be_written(s3: S3, samples: list[Sample]) -> None:
    with pytest.raises(RemoteError, match="no such place"):
        fill(as_place("s3://nobody/store"), samples)
    with pytest.raises(OutputError, match="not written file by file"):
        as_place("hf://datasets/me/some/store").write_bytes(b"")


def test_a_refusal_is_not_repeated(s3: S3, samples: list[Sample]) -> None:
    place = bucket()
    fill(place, samples[:2])
    with s3.failing("deny", lambda r: r.endswith(".parquet")) as failed, pytest.raises(RemoteError, match="refuses"):
        Store(place)
    assert len(failed) <= 3  # by the storage's own client
