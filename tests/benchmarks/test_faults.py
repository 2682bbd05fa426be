"""Kills at random moments, in their smallest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.faults import Found, Work, compare, contents

from datasetdm.store import write_store
from factory import LABELS, make_sample

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_what_is_killed_and_resumed_is_equal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--json", str(tmp_path / "f.json"), "--rounds", "2"]
    command += ["--count", "4", "--commands", "annotate", "export"]
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
