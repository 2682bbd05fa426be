"""Kills at random moments, in their smallest form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from benchmarks.common import Work as Units
from benchmarks.killing import Found, Work, compare, contents
from benchmarks.storage import ENVIRONMENT
from benchmarks.worker_faults import KILLS, OTHERS, ShortOfMemory

from benchmarks import worker_faults
from datasetdm.engines.cluster import PRIVATE, QUIET
from datasetdm.records import Sample
from datasetdm.store import write_store
from engines.shared import NumberedSamples
from factory import LABELS, make_sample

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_what_is_killed_and_resumed_is_equal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--json", str(tmp_path / "f.json"), "--rounds", "2"]
    command += ["--count", "4", "--commands", "annotate", "export", "--kills", "0", "--others", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["rounds"] == 2 and sum(figures["killed"].values()) >= 2
    assert {name: figures[name] for name in vars(Found())} == vars(Found()), done.stdout


def test_what_is_wrong_is_counted(tmp_path: Path) -> None:
    work, samples = Work((), store=True), [make_sample(f"s{i}", (8, 8), i) for i in range(3)]
    write_store(samples, tmp_path / "right", LABELS)
    right = contents(work, tmp_path / "right")
    assert compare(right, work, tmp_path / "right") == Found()
    write_store([samples[0], make_sample("s1", (8, 8), 9)], tmp_path / "wrong", LABELS)
    (tmp_path / "wrong" / "data" / ".x.y.tmp").write_text("")
    (tmp_path / ".wrong.z.tmp").write_text("")
    assert compare(right, work, tmp_path / "wrong") == Found(lost=1, differing=2, leftovers=2), "a sample and the shard"
    files = Work(())
    (tmp_path / "right" / "more.txt").write_text("")
    assert compare(contents(files, tmp_path / "wrong"), files, tmp_path / "right").duplicated == 1


@dataclass
class Hungry(NumberedSamples):
    """Needs memory for every batch."""

    def make(self, group: Sequence[int], without: Collection[int] = ()) -> list[Sample]:
        np.empty(2**24)
        return super().make(group, without)


def test_memory_is_refused_once(tmp_path: Path) -> None:
    stream = ShortOfMemory(Hungry(tmp_path), (), [2], tmp_path)
    assert len(stream.make((4, 5))) == 2
    with pytest.raises(MemoryError):
        stream.make((0, 1, 2, 3))
    assert len(stream.make((0, 1, 2, 3))) == 4 and (tmp_path / "refused-2").exists()


def test_rounds_of_workers_are_counted_and_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        ran: ClassVar[list[str]] = []

        def __init__(self, *_: object) -> None:
            """Nothing to begin."""

        def run(self, kind: str, number: int, seed: int) -> dict[str, int]:
            self.ran.append(kind)
            return {**vars(Found(lost=kind == "shard")), "done": int(kind != "memory")}

    monkeypatch.setattr(worker_faults, "Rounds", Stub)
    monkeypatch.setattr(worker_faults, "may_mount", lambda: True)
    for name in ("make_bucket", "_begin", "_finish"):
        monkeypatch.setattr(worker_faults, name, lambda *_: None)
    monkeypatch.setattr(worker_faults, "serving", lambda *_: nullcontext("http://127.0.0.1:1"))
    for name in ("RAY_AUTH_TOKEN", "AWS_ENDPOINT_URL", *ENVIRONMENT, *QUIET, *PRIVATE):
        monkeypatch.setenv(name, "")  # so that it is taken back afterwards
    units = Units(tmp_path / "work", {})
    for _ in range(2):
        found = worker_faults.measure(units, tmp_path, 3, 4, seed=0, count=4)
        assert Stub.ran == [KILLS[0], KILLS[1], KILLS[0], *OTHERS]
    assert (found["rounds"], found["lost"], found["differing"]) == (7, 1, 0)
    assert found["rounds_by_kind"]["worker"] == 2 and found["happened"]["memory"] == 0
