from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from datasetdm.errors import ConfigError
from datasetdm.prompts import PromptRow, check_labels, describe, iter_prompts, read_prompts
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '["a dog", {"text": "a cat"}]'),
        ("p.json", '[{"prompt": "a dog", "id": 3}, {"caption": "a cat"}]'),
        ("p.jsonl", '{"prompt": "a dog"}\n\n"a cat"\n'),
        ("p.csv", 'id,prompt\n1,"a dog"\n2,a cat\n'),
        ("p.tsv", "prompt\tcategory\na dog\tx\r\na cat\ty\r\n"),
        ("p.TXT", "a dog\r\na cat"),
    ],
)
def test_prompts_in_other_formats(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_prompts([str(tmp_path / name)]) == ["a dog", "a cat"]


def test_rows_with_labels_seed_and_negative(tmp_path: Path) -> None:
    expected = [PromptRow("a dog, wet", ("dog", "sky"), 7, "blurry"), PromptRow("a cat")]
    (tmp_path / "p.csv").write_text('prompt,labels,seed,negative\n"a dog, wet",dog; sky,7,blurry\na cat,,,\n')
    row = {"prompt": "a dog, wet", "labels": ["dog", "sky"], "seed": 7, "negative": "blurry"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"prompt": "a cat"}))
    for name in ("p.csv", "p.jsonl"):
        assert list(iter_prompts([str(tmp_path / name)])) == expected


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a dog\u2028in a park\na cat\x85and\x0ca cow\n", encoding="utf-8")
    assert read_prompts([str(path)]) == ["a dog\u2028in a park", "a cat\x85and\x0ca cow"]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("p.json", '{"prompt": "a dog"}', "no list of prompts"),
        ("p.json", "[1]", "is no prompt"),
        ("p.json", '["a dog"', "cannot be read"),
        ("p.json", "[" * 100_000, "cannot be read"),
        ("p.jsonl", '{"prompt": "a dog", "seed": "x"}', "the seed is 'x'"),
        ("p.jsonl", '{"prompt": "a dog", "labels": "dog"}', "labels are dog"),
        ("p.csv", "id,name\n1,a dog\n", "no column holds prompts: id, name"),
        ("p.csv", "prompt,id\n,1\n", "a row has no prompt"),
    ],
)
def test_bad_rows_name_their_place(name: str, text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        read_prompts([str(tmp_path / name)])
    assert name in str(caught.value)


def test_a_long_file_gives_its_first_prompts_at_once(tmp_path: Path) -> None:
    """20 MB of lines: nothing but the first is read."""
    path = tmp_path / "p.txt"
    path.write_text("a photo of a dog\n" * 1_200_000)
    start = time.perf_counter()
    assert next(iter_prompts([str(path)])).text == "a photo of a dog"
    assert time.perf_counter() - start < 0.1


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
