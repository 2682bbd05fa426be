from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasetdm.errors import ConfigError, DatasetDMError, OutputError, unknown_name
from datasetdm.io.files import (
    atomic,
    locked,
    occupied,
    parse_json,
    remove_leftovers,
    safe_name,
    write_json,
)


def test_atomic_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="disk is full") as caught, atomic(tmp_path / "x") as path:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "where:" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_file_size_limit_stops_a_store_cleanly(tmp_path: Path) -> None:
    """The operating system itself refuses, in a process of its own."""
    code = """
import resource, sys, numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from datasetdm.store import write_store
from datasetdm.records import Labels, Sample
from datasetdm.errors import OutputError
noise = np.random.default_rng(0)
labels = Labels(("a",))
rows = (Sample(str(i), noise.integers(0, 255, (64, 64, 3), dtype=np.uint8), labels) for i in range(8))
try:
    write_store(rows, sys.argv[1], labels)
except OutputError as e:
    print("clear:", e.what)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True, check=True)
    assert "clear: the disk is full" in done.stdout
    assert not list((tmp_path / "s" / "data").iterdir())


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_json(tmp_path / "file" / "below.json", {})


@given(st.text(max_size=200), st.text(max_size=200))
def test_safe_names_stay_inside_and_apart(a: str, b: str) -> None:
    name = safe_name(a)
    assert "/" not in name and "\\" not in name and name not in (".", "..") and len(name) < 200
    assert (safe_name(a) == safe_name(b)) == (a == b)


def test_errors_say_where_what_and_how() -> None:
    error = DatasetDMError("it is wrong", where="a.json, line 3", expected="something right", remedy="mend it")
    assert str(error).splitlines() == [
        "it is wrong",
        "  where:    a.json, line 3",
        "  expected: something right",
        "  remedy:   mend it",
    ]


def test_unknown_names_suggest_the_nearest() -> None:
    error = unknown_name("task", "semantics", ["semantic", "depth"])
    assert isinstance(error, ConfigError)
    assert "did you mean 'semantic'?" in str(error)


def test_a_lock_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".fit.lock"
    for _ in range(2):
        with locked(path, "fit"):
            with (
                pytest.raises(OutputError, match="this fit is being written by another process") as caught,
                locked(path, "fit"),
            ):
                pass
            assert f"process {os.getpid()}" in str(caught.value)
            assert not occupied(tmp_path / "new"), "a lock is no output"
        assert not (tmp_path / "new").exists(), "it leaves nothing"
    with pytest.raises(RuntimeError), locked(path, "fit"):
        raise RuntimeError
    with locked(path, "fit"):
        pass


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".a.x1.tmp", ".b.x2.tmp", "a.tmp", ".a.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / ".a.x3.tmp").mkdir()
    (tmp_path / ".a.x3.tmp" / "file").write_text("")
    remove_leftovers(tmp_path, "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.txt", ".b.x2.tmp", "a.tmp"]
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.txt", "a.tmp"]


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
