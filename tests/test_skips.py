"""In CI a test that is skipped for want of a program fails (the root's conftest.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPED = """
import pytest

def test_program():
    pytest.skip("no Chromium on the path")

def test_allowed():
    pytest.skip("needs CUDA")

missing = pytest.importorskip("no_such_package")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "code", "failed"), [("", 5, False), ("true", 2, True)])
def test_modules_that_need_a_package(ci: str, code: int, failed: bool, tmp_path: Path) -> None:
    done = run(SKIPPED, ci, tmp_path)
    assert done.returncode == code and ("could not import 'no_such_package'" in done.stdout) is failed, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "code", "summary"), [("", 0, "2 skipped"), ("true", 1, "1 failed, 1 skipped")])
def test_tests_that_need_a_program(ci: str, code: int, summary: str, tmp_path: Path) -> None:
    done = run(SKIPPED.partition("missing")[0], ci, tmp_path)
    assert done.returncode == code and summary in done.stdout, done.stdout
    assert ("all that tests need: no Chromium on the path" in done.stdout) is (code == 1)


def run(content: str, ci: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_some.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")} | {"CI": ci}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
