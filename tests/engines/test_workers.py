"""What the driver does when workers end or fail, with workers in this process."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from datasetdm.engines import ray
from datasetdm.engines.cluster import Cluster, connected
from datasetdm.engines.local import write
from datasetdm.engines.parts import divide, part_size
from datasetdm.errors import ConfigError, DataError, EngineError, StoreError
from datasetdm.store.manifest import shard_path
from datasetdm.store.store import Store
from engines.in_process import InProcess
from engines.shared import NumberedSamples, contents, make_task, sample, undisturbed

SHARD = 8


def run(out: Path, count: int | None, workers: int | None = 2, gpus: int = 0, **task: Any) -> ray.Event:
    event, machine = ray.Event(), InProcess(gpus)
    job = make_task(out.with_name(f"{out.name}-tried"), count, **task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "connected", machine.connected)
        with closing(ray.iter_write(job, out, Cluster(None, workers), count, SHARD)) as events:
            for event in events:  # noqa: B007
                pass
    return event


@pytest.mark.parametrize("count", [3, 8, 29, 200])
def test_the_store_equals_that_of_one_process(tmp_path: Path, count: int) -> None:
    event = run(tmp_path / "store", count)
    assert contents(tmp_path / "store") == undisturbed(tmp_path, count)
    assert (event.held, event.made, event.seen.samples, event.notes) == (count, count, count, ["a note"])
    assert event.seen.labels["dog"] == count and not event.failures


def test_a_store_of_one_process_goes_on_with_workers_and_back(tmp_path: Path) -> None:
    source, store = NumberedSamples(tmp_path), tmp_path / "store"
    write(source, store, 5, SHARD)
    assert run(store, 21).seen.samples == 16
    assert run(store, 21).seen.samples == 0
    write(source, store, 26, SHARD)
    assert contents(store) == undisturbed(tmp_path, 26)


def test_large_samples_fill_shards_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("handover", "writer"):
        monkeypatch.setattr(f"datasetdm.store.{place}.SHARD_BYTES", 10_000)
    run(tmp_path / "store", 100)
    store = Store(tmp_path / "store")
    assert [s.digest() for s in store] == [sample(n).digest() for n in range(100)]
    assert max(s.rows for s in store.shards) < SHARD


def test_workers_that_end_are_replaced(tmp_path: Path) -> None:
    event = run(tmp_path / "store", 24, faults={3: "kill1", 17: "kill1", 18: "kill1"})
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 24) and event.seen.samples == 24


def test_an_error_that_passes_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "store", 16, faults={1: "memory1", 9: "error1", 13: "together"})
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 16)


def test_a_gpu_that_is_gone_takes_no_samples_along(tmp_path: Path) -> None:
    event = run(tmp_path / "store", 16, faults={5: "CUDA error1"})
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 16) and not event.failures
    assert len({p.name for p in (tmp_path / "store-tried").iterdir()}) == 1, "not tried again by the same worker"


def test_a_worker_that_can_make_nothing_is_replaced(tmp_path: Path) -> None:
    """All samples of a group fail three times, together and alone; the next worker makes them."""
    event = run(tmp_path / "store", 16, faults=dict.fromkeys((4, 5, 6, 7), "worker1"))
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 16) and not event.failures


def test_poisoned_samples_are_set_aside_with_their_errors(tmp_path: Path) -> None:
    store, poison = tmp_path / "store", {2: "error", 9: "memory", 14: "kill"}
    event = run(store, 20, faults=poison)
    assert [s.key for s in Store(store)] == [f"{n:04d}" for n in range(20) if n not in poison]
    assert all(s.digest() == sample(int(s.key)).digest() for s in Store(store))
    said = [json.loads(line) for line in (store / "failed.jsonl").read_text().splitlines()]
    assert [(f["key"], f["prompt"], f["tries"]) for f in said] == [(f"{n:04d}", f"prompt {n}", 3) for n in poison]
    assert [f.error for f in event.failures][:2] == ["RuntimeError: sample 2 cannot be made", "MemoryError"]
    assert "it ended 3 workers" in event.failures[2].error and event.held == 17
    assert run(store, 20, faults=poison).failures == [], "they are not tried again"
    write(NumberedSamples(tmp_path), store, 24, SHARD)
    assert len(Store(store)) == 21, "nor by another engine"
    (store / "failed.jsonl").unlink()
    assert run(store, 24).seen.samples == 3 and len(Store(store)) == 24


def test_a_group_of_poisoned_samples_is_set_aside(tmp_path: Path) -> None:
    event = run(tmp_path / "store", 40, faults=dict.fromkeys((8, 9, 10, 11), "error"))
    assert [f.key for f in event.failures] == ["0008", "0009", "0010", "0011"] and event.held == 36


def test_a_run_in_which_most_fails_ends(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="of 32 samples failed"):
        run(tmp_path / "store", 200, faults={n: "error" for n in range(200) if n % 4})


@pytest.mark.parametrize(("fault", "error"), [("setting", ConfigError), ("data", DataError)])
def test_settings_and_data_that_are_wrong_end_the_run(fault: str, error: type[Exception], tmp_path: Path) -> None:
    """As without workers: nothing is set aside, and the same command goes on when the cause is gone."""
    with pytest.raises(error, match=r"this (image )?cannot be"):
        run(tmp_path / "store", 24, faults={11: fault})
    assert not (tmp_path / "store" / "failed.jsonl").exists() and len([*(tmp_path / "store-tried").iterdir()]) == 1
    run(tmp_path / "store", 24)
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 24)


def test_workers_that_never_begin_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="3 workers ended before they did anything"):
        run(tmp_path / "store", 8, opening="end")
    assert not (tmp_path / "store").exists()


def test_a_fault_of_a_worker_takes_no_samples_along(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="a worker failed"):
        run(tmp_path / "store", 8, opening="broken")


def test_workers_must_have_the_same_models(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="different models"):
        run(tmp_path / "store", 40, opening="other")


def test_another_stream_is_refused(tmp_path: Path) -> None:
    write(NumberedSamples(tmp_path, name="other"), tmp_path / "store", 2)
    with pytest.raises(StoreError, match="source differs"):
        run(tmp_path / "store", 8)


def test_parts_of_a_run_that_was_stopped_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops before it takes anything over; one of the parts is damaged since, and made again."""
    store, tried = tmp_path / "store", tmp_path / "store-tried"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ray, "adopt", _interrupt)
        run(store, 24)
    whole = sorted((store / "parts").glob("*.json"))
    assert len(Store(store)) == 0 and len(whole) >= 1
    left = {int(p.name[:9]) for p in whole}
    event = run(store, 24, faults=dict.fromkeys(left, "error"))
    assert contents(store) == undisturbed(tmp_path, 24) and not event.failures, "they fail if they are made again"
    assert not [*tried.iterdir()]


def test_a_damaged_part_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ray, "adopt", _interrupt)
        run(tmp_path / "store", 24)
    for path in (tmp_path / "store" / "parts").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9] + b"damaged!!")
    run(tmp_path / "store", 24)
    assert contents(tmp_path / "store") == undisturbed(tmp_path, 24)


def test_what_cannot_be_seen_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "open_staged", lambda *_, **__: None)
    with pytest.raises(EngineError, match="cannot be seen"):
        run(tmp_path / "store", 8)


def test_a_damaged_last_shard_is_named_and_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(store, 24)
    last = shard_path(store, 2)
    last.write_bytes(last.read_bytes()[:-9] + b"damaged!!")
    with pytest.raises(StoreError, match="a shard is damaged"):
        run(store, 24)
    for path in (last, last.with_suffix(".json")):  # as the message says
        path.unlink()
    run(store, 24)
    assert contents(store) == undisturbed(tmp_path, 24)


def test_there_is_one_worker_per_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = InProcess(gpus=3)
    monkeypatch.setattr(ray, "connected", machine.connected)
    with closing(ray.iter_write(make_task(tmp_path / "tried", 40), tmp_path / "store", Cluster(), 40, SHARD)) as events:
        most = max(event.workers for event in events)
    assert machine.hired == 3 and most > 1 and machine.asked["num_gpus"] == 1


def test_parts() -> None:
    parts = list(divide(range(5, 30), 5, 10, 4))
    assert [n for p in parts for n in p.numbers] == list(range(5, 30))
    assert [len(p.numbers) for p in parts] == [3, 2, 4, 4, 2, 4, 4, 2]
    assert [p.ends for p in parts] == [False, True, False, False, True, False, False, True]
    assert len({p.name for p in parts}) == len(parts)
    assert part_size(None, 2, 16, 256) == 256 and part_size(10_000, 2, 16, 256) == 256
    assert part_size(64, 2, 16, 256) == 16 and part_size(300, 2, 16, 256) == 48 and part_size(1, 2, 16, 8) == 8


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasetdm.engines.cluster.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="Ray is not installed"), connected(Cluster()):
        pass


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
