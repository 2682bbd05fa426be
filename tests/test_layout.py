"""The architecture as tests: imports point one way, reading and viewing need no torch, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import datasetdm

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "datasetdm"

ORDER = [
    "errors", "records", "io", "metrics", "prompts", "store", "readers", "transforms", "exporters", "viewer",
    "backbones", "decoder", "training", "pipelines", "cli",
]  # fmt: skip
"""A part may import those before it (and itself)."""

NEVER_MEET = [("readers", "exporters"), ("backbones", "metrics")]
NO_TORCH = ORDER[: ORDER.index("viewer") + 1]


def imports() -> dict[str, set[str]]:
    """Which top-level parts each part imports, imports inside functions included."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("datasetdm."):
                found.setdefault(part, set()).add((node.module or "").split(".")[1])
    found.pop("__init__")
    return found


def test_every_part_has_its_place() -> None:
    parts = {p.relative_to(SOURCE).parts[0].removesuffix(".py") for p in SOURCE.rglob("*.py")} - {"__init__"}
    assert parts == set(ORDER)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{part} imports {other}"
        for part, others in imports().items()
        for other in others - {part}
        if ORDER.index(other) > ORDER.index(part)
    ]
    assert not wrong


def test_parts_that_never_meet() -> None:
    graph = imports()
    for a, b in NEVER_MEET:
        assert b not in graph.get(a, set()) and a not in graph.get(b, set())


def test_reading_and_viewing_need_no_torch() -> None:
    modules = [
        "datasetdm." + ".".join(p.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for p in SOURCE.rglob("*.py")
        if p.relative_to(SOURCE).parts[0].removesuffix(".py") in NO_TORCH
    ]
    code = f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(modules) > 15 and done.stdout.strip() == "False"


def test_files_stay_small() -> None:
    long = [p for p in SOURCE.rglob("*.py") if len(p.read_text().splitlines()) > 400]
    assert not long


def test_public_names_are_there_and_documented() -> None:
    for name in datasetdm.__all__:
        assert (getattr(datasetdm, name).__doc__ or "").strip(), name
    assert sorted(datasetdm.__all__) == sorted(datasetdm._HOME_OF)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = datasetdm.nothing


def test_every_public_function_has_a_docstring() -> None:
    bare = []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            bare.append(str(path))
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                bare.append(f"{path}:{node.name}")
    assert not bare


def test_nothing_unpickles() -> None:
    text = "\n".join(p.read_text() for p in SOURCE.rglob("*.py"))
    assert not re.search(r"torch\.load|pickle|joblib|allow_pickle|use_safetensors=False", text)


def test_readme_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    used = set(re.findall(r"^(?:\$ )?datasetdm (\w+)", readme, re.M))
    done = subprocess.run([sys.executable, "-m", "datasetdm.cli", "--help"], capture_output=True, text=True, check=True)
    assert used and all(f" {c} " in done.stdout for c in used)
    assert "make demo" in readme and "make test" in readme
