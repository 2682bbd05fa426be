"""The architecture as tests: imports point one way, reading and viewing need no torch, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import datasetdm

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "datasetdm"

ORDER = [
    "errors", "records", "io", "metrics", "prompts", "store", "readers", "transforms", "exporters", "viewer",
    "backbones", "decoder", "training", "downstream", "quality", "pipelines", "engines", "recipe", "cli",
]  # fmt: skip
"""A part may import those before it (and itself)."""

NEVER_MEET = [
    ("readers", "exporters"),
    ("readers", "transforms"),
    ("backbones", "metrics"),
]
NO_TORCH = ORDER[: ORDER.index("viewer") + 1]

DEEPEST = 13
"""Modules in the longest chain of imports at most, those inside functions counted."""
RECORD_CHECKS = 12
"""Lines with `isinstance` on a record at most: what an annotation is says the field that holds it."""
TASK_NAMES = 105
"""Literal task names at most outside the tasks' own files. Those that are left name columns and fields: of other
people's formats, of the store's rows."""

RECORDS = r"isinstance\([^)]*\b(SemanticMap|Instances|DepthMap|Keypoints)\b"
TASKS = {"semantic", "depth", "instance", "keypoints"}


@cache
def modules() -> dict[str, Path]:
    """Every module by its full name."""
    parts = {path: ("datasetdm", *path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {".".join(names).removesuffix(".__init__"): path for path, names in parts.items()}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def imported(module: str) -> Iterator[str]:
    """The project's modules that this one imports, those inside functions included; a package stands for its face."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "datasetdm":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else str(node.module)


@cache
def graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports. The package's own face, which names the others as strings, is left out."""
    return {module: {*imported(module)} - {module, "datasetdm"} for module in modules() if module != "datasetdm"}


def part(module: str) -> str:
    return module.split(".")[1]


def meetings() -> dict[str, set[str]]:
    """Part -> the other parts that it imports."""
    found: dict[str, set[str]] = {}
    for module, others in graph().items():
        found.setdefault(part(module), set()).update(part(other) for other in others)
    return {own: others - {own} for own, others in found.items()}


# ---------------------------------------------------------------------- imports
def test_every_part_has_its_place() -> None:
    assert {part(m) for m in graph()} == set(ORDER)


def test_imports_point_one_way() -> None:
    wrong = [(a, b) for a, others in meetings().items() for b in others if ORDER.index(b) > ORDER.index(a)]
    assert not wrong


def test_parts_that_never_meet() -> None:
    for a, b in NEVER_MEET:
        assert b not in meetings().get(a, set()) and a not in meetings().get(b, set()), (a, b)


def test_chains_of_imports_are_short_and_end() -> None:
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(graph()).static_order():  # raises CycleError with the modules of a cycle
        chains[module] = [module, *max((chains[other] for other in graph()[module]), key=len, default=[])]
    longest = max(chains.values(), key=len)
    assert len(longest) <= DEEPEST, " > ".join(longest)


def test_reading_and_viewing_need_no_torch() -> None:
    light = [module for module in graph() if part(module) in NO_TORCH]
    code = f"import sys, importlib\nfor m in {light!r}: importlib.import_module(m)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(light) > 15 and done.stdout.strip() == "False"


def test_the_package_imports_neither_its_makers_nor_its_judges() -> None:
    outside = re.compile(r"^\s*(?:from|import) (?:miniworld|benchmarks|tests)\b", re.M)
    assert not [path for path in SOURCE.rglob("*.py") if outside.search(path.read_text())]


# ---------------------------------------------------------------------- folders and files
@pytest.mark.parametrize("kind", ["readers", "exporters"])
def test_formats_are_formats(kind: str) -> None:
    """What lies in `formats/` is what the registry names, and nothing else: helpers lie beside the folder."""
    named = set(re.findall(r"\.formats\.(\w+):", (SOURCE / kind / "__init__.py").read_text()))
    assert named and named == {path.stem for path in (SOURCE / kind / "formats").glob("*.py")} - {"__init__"}


def test_files_stay_small() -> None:
    assert not [path for path in SOURCE.rglob("*.py") if len(path.read_text().splitlines()) >= 400]


def test_public_names_are_there_and_documented() -> None:
    for name in datasetdm.__all__:
        assert (getattr(datasetdm, name).__doc__ or "").strip(), name
    assert sorted(datasetdm.__all__) == sorted(datasetdm._HOME_OF)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = datasetdm.nothing


def test_every_public_function_has_a_docstring() -> None:
    bare = [module for module in modules() if not ast.get_docstring(tree(module))]
    for module in modules():
        defined = [n for n in tree(module).body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
        bare += [f"{module}.{n.name}" for n in defined if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert not bare


def test_the_architecture_page_shows_the_folders_that_there_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    tree, around = re.findall(r"```text\n(.*?)```", page, re.S)
    shown = re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.M)
    assert tree.startswith("src/datasetdm/\n") and shown == [*ORDER, "assets"]
    folders = re.findall(r"^([\w/]+)/ ", around, re.M)
    assert len(folders) >= 5 and all((ROOT / name).is_dir() for name in folders)


# ---------------------------------------------------------------------- words
def test_few_lines_ask_what_a_record_is() -> None:
    lines = [
        line for path in SOURCE.rglob("*.py") for line in path.read_text().splitlines() if re.search(RECORDS, line)
    ]
    assert len(lines) <= RECORD_CHECKS, lines


def test_few_strings_name_tasks() -> None:
    """Tasks are known by name in their own files, `decoder/tasks`."""
    found = [
        f"{module}:{node.lineno}"
        for module in modules()
        if not module.startswith("datasetdm.decoder.tasks.")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and node.value in TASKS
    ]
    assert len(found) <= TASK_NAMES, found


def test_nothing_unpickles() -> None:
    text = "\n".join(p.read_text() for p in SOURCE.rglob("*.py"))
    assert not re.search(r"torch\.load|(?<!allow_)pickle|joblib|allow_pickle=True|use_safetensors=False", text)


def test_readme_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    used = set(re.findall(r"^(?:\$ )?datasetdm (\w+)", readme, re.M))
    done = subprocess.run([sys.executable, "-m", "datasetdm.cli", "--help"], capture_output=True, text=True, check=True)
    assert used and all(f" {c} " in done.stdout for c in used)
    assert "make demo" in readme and "make test" in readme
