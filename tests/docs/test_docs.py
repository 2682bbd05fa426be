"""README and documentation: short enough, links that lead somewhere, commands that exist, figures that were measured."""

from __future__ import annotations

import contextlib
import io
import json
import pydoc
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import datasetdm
from commands import run
from datasetdm.exporters import EXPORTERS
from datasetdm.readers import READERS, read
from datasetdm.recipe.run import load_recipe, shipped
from datasetdm.store import write_store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(DOCS.rglob("*.md"))
TUTORIAL = DOCS / "tutorial.md"

FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.M | re.S)
"""Language and content of a block of code."""


def names(pages: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in pages]


def blocks(page: Path, language: str) -> list[str]:
    return [content for kind, content in FENCE.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def commands_in(text: str) -> Iterator[list[str]]:
    """The `datasetdm` commands of a shell script, as argument lists."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:
            words = words[1:]
        if words and words[0] == "datasetdm":
            yield words[1:]


def commands(page: Path) -> list[list[str]]:
    """Those of a page, in blocks and in backticks."""
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )*datasetdm [^`]+)`", prose(page))
    return list(commands_in("\n".join([*blocks(page, "sh"), *inline])))


@cache
def help_of(*command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run(*command, "--help") == 0, f"no such command: {command}"
    return printed.getvalue()


def test_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 1300
    assert "make demo" in text and "make test" in text


PLAIN = [p for p in PAGES if p.name not in ("LOG.md", "ablations.md", "CHANGELOG.md")]
"""Pages in the field's own words; the others quote what was once written."""


@pytest.mark.parametrize("page", PLAIN, ids=names(PLAIN))
def test_words_are_the_fields_own(page: Path) -> None:
    assert not re.findall(r"\b(?:pictures?|hears?|heard|(?:un)?told|drawn|loud|a share of)\b", page.read_text(), re.I)


def test_the_version_is_that_of_the_changelog() -> None:
    """The newest heading names it; until its release it is a development version."""
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    number, _, state = newest.partition(", ")
    assert datasetdm.__version__ == (f"{number}.dev0" if state == "unreleased" else number)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    source = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert re.findall(r'^__version__ = "(.+)"$', source.read_text(), re.M) == [datasetdm.__version__]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"`(?!docs/_build)((?:src|tests|docs|benchmarks|examples|miniworld|data)/[^`*{ ]+)`", prose(page)
    )
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_names_of_the_package_exist(page: Path) -> None:
    new = re.sub(r"^\|[^|]*(?=\|)", "", prose(page), flags=re.M)  # the first column of a table may hold old names
    named = set(re.findall(r"`(datasetdm\.[a-z][\w.]*\w)(?=[`(])", new)) - {"datasetdm.toml"}
    assert not [name for name in named if pydoc.locate(name) is None]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_exist_with_their_options(page: Path) -> None:
    for command in commands(page):
        if command[0].startswith("-"):
            continue
        text = help_of(command[0])
        for word in command[1:]:
            option = word.partition("=")[0]
            assert not word.startswith("--") or re.search(rf"{option}(?![\w-])", text), f"{command[0]} has no {word}"


def test_readme_and_tutorial_name_commands() -> None:
    for page, least in ((ROOT / "README.md", 5), (TUTORIAL, 8)):
        assert len(commands(page)) >= least


def measured() -> set[str]:
    """Every number of `benchmarks/results`, with three decimals."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for v in value:
                walk(v)
        elif isinstance(value, float):
            found.add(f"{value:.3f}")

    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        walk(json.loads(path.read_text()))
    return found


@pytest.mark.parametrize("name", ["README.md", "docs/figures.md", "docs/limits.md"])
def test_figures_were_measured(name: str) -> None:
    sources = measured() | set(re.findall(r"\d+\.\d{3}\b", (DOCS / "LOG.md").read_text()))
    used = set(re.findall(r"(?<![\w.])\d+\.\d{3}\b", (ROOT / name).read_text()))
    assert used and not used - sources


PYTHON = [(page, block) for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize(("page", "block"), PYTHON, ids=names([p for p, _ in PYTHON]))
def test_python_blocks_run(page: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that fit or generate are compiled, and their names looked up; all others run."""
    code = compile(block, str(page), "exec")
    if "ddm.fit" not in block:
        exec(code, {"__name__": "block"})
        return
    assert all(hasattr(datasetdm, name) for name in re.findall(r"\bddm\.(\w+)", block))


@pytest.mark.parametrize("block", [b for p in PAGES for b in blocks(p, "yaml")])
def test_recipes_can_be_read(block: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(block)
    assert load_recipe(tmp_path / "recipe.yaml").stages


def test_recipes_of_the_package_are_listed() -> None:
    listed = re.findall(r"^\| `([\w/-]+)` \|", (DOCS / "howto" / "recipes.md").read_text(), re.M)
    assert sorted(listed) == sorted(shipped())


def test_formats_are_listed() -> None:
    text = prose(DOCS / "howto" / "formats.md")
    assert not [name for name in (*READERS, *EXPORTERS) if f"`{name}`" not in text]


STANDS_FOR = {
    "mini:train": "store:{small}",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "mini",
    "train=0.9,test=0.1": "train=0.8,test=0.2",
    "--count 1000": "--count 4",
    "count: 1000": "count: 4",
}
"""What the tutorial's commands name -> the smaller thing that the test puts in its place."""

SETTINGS = """
[fit]
steps = 2
variants = 1
limit = 10

[generate]
steps = 2

[annotate]
limit = 4
"""


@pytest.mark.slow
def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """All commands of the tutorial, one after the other, on 20 images with two steps."""
    small = tmp_path / "small"
    reader = read("mini:train")
    write_store((s for _, s in zip(range(20), reader, strict=False)), small, reader.labels)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "datasetdm.toml").write_text(SETTINGS)
    monkeypatch.setattr("datasetdm.viewer.server.serve", lambda *_: None)

    text = TUTORIAL.read_text()
    for name, smaller in STANDS_FOR.items():
        assert name in text
        text = text.replace(name, smaller.format(small=small))
    scripts = {kind: content for kind, content in FENCE.findall(text) if kind in ("text", "yaml")}
    (work / "prompts.txt").write_text(scripts["text"])
    (work / "recipe.yaml").write_text(scripts["yaml"])
    for command in commands_in("".join(content for kind, content in FENCE.findall(text) if kind == "sh")):
        assert run(*command) == 0, capfd.readouterr().err
    assert {"photos", "my-decoder", "my-data", "page.html", "my-coco", "annotated", "work"} <= {
        p.name for p in work.iterdir()
    }


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    arguments = ["-q", "-W", "--keep-going", "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "genindex.html").read_text()
    missing = [name for name in datasetdm.__all__ if not re.search(rf">{name}\b", index)]
    assert not missing, "public names that the reference lacks"
    assert all(f'id="{name}"' in (tmp_path / "site" / "reference" / "cli.html").read_text() for name in ("fit", "view"))
