"""A few mutated inputs of everything that reads files of others; `python -m benchmarks.fuzz` runs thousands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.fuzz import Result, Target, run_inputs, targets
from benchmarks.mutations import KNOWN, mutate

from datasetdm.errors import DataError
from datasetdm.readers import READERS

ROOT = Path(__file__).parent.parent.parent
COUNT = 40
TOGETHER = """
import json, sys, time, warnings
from benchmarks.fuzz import Result, limit_memory, run_inputs, targets

warnings.simplefilter("ignore")
found = {name: Result() for name in sys.argv[2:]}
for name, total in found.items():
    for result in run_inputs(name, targets()[name](), range(int(sys.argv[1])), 7, time.monotonic() + 60):
        total.add(result)
        if total.inputs == 1:
            limit_memory()
for name, total in found.items():
    print(json.dumps([name, vars(total)]))
"""

NAMES = sorted({*READERS, "prompts", "recipe"})


@pytest.fixture(scope="module")
def fuzzed() -> dict[str, dict[str, Any]]:
    """What became of the inputs of every target, in one process of its own."""
    command = [sys.executable, "-c", TOGETHER, str(COUNT), *NAMES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutated_files_are_read_or_refused(name: str, fuzzed: dict[str, dict[str, Any]]) -> None:
    result = fuzzed[name]
    assert not result["failures"], result["failures"]
    assert result["inputs"] == COUNT and result["refused"] > 0


def test_every_reader_is_a_target() -> None:
    assert {*READERS, "decoder"} <= set(targets())


@pytest.mark.parametrize("name", ["a.bin", *(f"a{suffix}" for suffix in KNOWN)])
def test_mutations_depend_on_the_generator_alone(name: str) -> None:
    data = b'{"a": [1, {"b": "c"}]}' * 3
    for number in range(40):
        first, again = (mutate(np.random.default_rng(number), name, data) for _ in range(2))
        assert first == again
    assert len({mutate(np.random.default_rng(n), name, data) for n in range(40)}) > 15


def test_failures_are_found_and_named() -> None:
    """A crash, and a hang; an error of the project's own is right."""

    def use(folder: Path, rng: np.random.Generator) -> None:
        text = (folder / "a.txt").read_bytes()
        if text != b"good":
            raise DataError("wrong") if b"g" in text else ZeroDivisionError

    target = Target(lambda folder: (folder / "a.txt").write_text("good"), use)
    total = Result()
    for result in run_inputs("own", target, iter(range(60)), 0, float("inf")):
        total.add(result)
    assert total.inputs == 60 and total.refused and total.failures
    first = total.failures[0]
    assert first["error"].startswith("ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        list(run_inputs("own", target, iter([first["input"]]), 0, float("inf"), raising=True))
