from __future__ import annotations

from pathlib import Path

import pytest

from datasetdm.errors import ConfigError
from datasetdm.prompts import check_labels, describe, read_prompts
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import LABELS as MINI
from factory import LABELS


def test_files_and_words(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("# mine\na dog\n\n  a cat  \n")
    assert read_prompts([str(path)]) == ["a dog", "a cat"]
    assert read_prompts(["a dog", " ", "a cat"]) == ["a dog", "a cat"]


def test_long_prompts_are_no_files_and_marks_are_no_words(tmp_path: Path) -> None:
    long = "a dog " * 100
    assert read_prompts([long]) == [long.strip()]
    (tmp_path / "bom.txt").write_text("# mine\na dog\n", encoding="utf-8-sig")
    assert read_prompts([str(tmp_path / "bom.txt")]) == ["a dog"]


def test_bad_prompts(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for given, what in (
        ([str(tmp_path / "empty.txt")], "holds no prompt"),
        ([str(tmp_path / "binary.txt")], "cannot be read"),
        (["missing.txt"], "no such prompt file"),
        ([" "], "no prompt"),
    ):
        with pytest.raises(ConfigError, match=what):
            read_prompts(given)


def test_prompts_that_name_no_label() -> None:
    assert check_labels(["a dog", "a spaceship"], LABELS) == ["a spaceship"]


def test_descriptions() -> None:
    assert describe(("background", "dog")) == "a photo of a dog"
    assert describe(("dog", "cat", "cow")) == "a photo of a dog, a cat and a cow"
    assert describe(()) == "a photo of a scene"


def test_the_grammar_is_reproducible_and_varied() -> None:
    grammar = Grammar.load()
    prompts = grammar.compose(220, seed=3)
    assert prompts == grammar.compose(220, seed=3) and prompts[:50] == grammar.compose(50, seed=3)
    assert prompts != grammar.compose(220, seed=4)
    assert len(set(prompts)) > 180
    assert not check_labels(prompts, MINI)
    named = {n for p in prompts for n in MINI.named_in(p)}
    assert set(MINI.names[:18]) <= named, "every thing of the world is drawn"
    assert not any("  " in p or " a orange" in f" {p}" for p in prompts)
