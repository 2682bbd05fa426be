from __future__ import annotations

import hashlib
import json
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from datasetdm.errors import ConfigError, DataError
from datasetdm.prompts import PromptFile, PromptRow, PromptSource, asked_labels, describe, files, nameless, open_prompts
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers.formats.mini import LABELS as MINI
from factory import LABELS


def texts(*given: str) -> list[str]:
    """All prompts, once."""
    opened: PromptSource = open_prompts(given)
    found: list[str] = []
    while opened.count is None or len(found) < opened.count:
        found.append(opened.row(len(found)).prompt)
    return found[: opened.count]


def test_files_and_words(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("# mine\na dog\n\n  a cat  \n")
    assert texts(str(path)) == ["a dog", "a cat"]
    assert texts("a dog", " ", "a cat") == ["a dog", "a cat"]


def test_long_prompts_are_no_files_and_marks_are_no_words(tmp_path: Path) -> None:
    long = "a dog " * 100
    assert texts(long) == [long.strip()]
    (tmp_path / "bom.txt").write_text("# mine\na dog\n", encoding="utf-8-sig")
    assert texts(str(tmp_path / "bom.txt")) == ["a dog"]


def test_bad_prompts(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "utf-16.txt").write_text("a dog", encoding="utf-16")
    (tmp_path / "latin.txt").write_bytes(b"a dog\na caf\xe9\n")
    (tmp_path / "table.parquet").write_bytes(b"PAR1\0\0")
    (tmp_path / "named.txt").write_text('{"prompt": "a dog"}\n')
    (tmp_path / "list.txt").write_text('[\n  "a dog"\n]\n')
    (tmp_path / "long.txt").write_text("a dog " * 400_000)
    (tmp_path / "fields.csv").write_text('prompt\n"a dog\n' + "a cat\n" * 40_000)
    (tmp_path / "folder").mkdir()
    for given, what in (
        ([str(tmp_path / "empty.txt")], "holds no prompt"),
        ([str(tmp_path / "utf-16.txt")], "is UTF-16"),
        ([str(tmp_path / "latin.txt")], "line 2 is not UTF-8"),
        ([str(tmp_path / "table.parquet")], "is no text"),
        ([str(tmp_path / "named.txt")], "holds JSON(.|\n)*suffix .jsonl"),
        ([str(tmp_path / "list.txt")], "holds JSON(.|\n)*suffix .json$"),
        ([str(tmp_path / "long.txt")], "a line has more than"),
        ([str(tmp_path / "fields.csv")], "field larger"),
        ([str(tmp_path / "folder")], "are no file"),
        (["/dev/null"], "are no file"),
        (["missing.txt"], "no such prompt file"),
        (["my missing.TXT"], "no such prompt file"),
        (["a.txt", "b.txt"], "not the only value"),
        ([" "], "no prompt"),
    ):
        with pytest.raises(ConfigError) as caught:
            texts(*given)
        assert re.search(what, str(caught.value)), given


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '["a dog", {"text": "a cat"}]'),
        ("p.json", '[{"prompt": "a dog", "id": 3}, {"caption": "a cat"}]'),
        ("p.json", '{"prompts": ["a dog", "a cat"]}'),
        ("p.jsonl", '{"prompt": "a dog"}\n\n"a cat"\n'),
        ("p.ndjson", '{"tag": "one", "include": [{"class": "dog"}], "prompt": "a dog"}\n{"Text": "a\\u2028cat"}'),
        ("p.csv", 'id,prompt\n1,"a dog"\n\n2,a cat\n'),
        ("p.csv", '\ufeff"Prompts";Category\r\na dog;x\r\na cat;y\r\n'),
        ("p.csv", 'prompt,n\n"a\ndog",1\n"a cat",2\n'),
        ("p.tsv", "Prompt\tCategory\na dog\tx\r\na cat\ty\r\n"),
        ("p.TXT", "a dog\r\na cat"),
        ("p.txt", "a dog\ra cat\r"),
        ("p.txt", "a\u2028dog\na\x85 \x0ccat\n\u3000\n"),
        ("prompts", "a dog\n# no\na cat"),
    ],
)
def test_prompts_in_other_formats(name: str, text: str, tmp_path: Path) -> None:
    """As prompt sets, spreadsheets and data frames write them."""
    (tmp_path / name).write_bytes(text.encode())
    assert texts(str(tmp_path / name)) == ["a dog", "a cat"]


def test_rows_with_labels_seed_and_negative(tmp_path: Path) -> None:
    row = PromptRow(prompt="a dog, wet", labels=("dog", "sky"), seed=7, negative="blurry")
    expected = [row, PromptRow(prompt="a cat")]
    tables = {
        "p.csv": 'prompt,labels,seed,negative\n"a dog, wet",dog; sky,7,blurry\na cat,,,\n',
        "q.csv": 'text,Seed,negative_prompt,labels\n"a dog, wet",7.0,blurry,"dog,sky"\na cat\n',
        "r.csv": 'prompt,labels,seed,negative\n"a dog, wet","[""dog"", ""sky""]",7,blurry\na cat,,,\n',
        "p.jsonl": row.to_json() + "\n" + json.dumps({"prompt": "a cat", "seed": None}),
    }
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
        assert list(PromptFile(tmp_path / name)) == expected, name


def test_what_a_prompt_is_meant_to_show_goes_through_a_file(tmp_path: Path) -> None:
    row = PromptRow(prompt="two dogs", labels=("dog",), origin="language-model", counts={"dog": 2}, place="a park")
    (tmp_path / "p.jsonl").write_text(row.to_json() + "\n")
    assert PromptFile(tmp_path / "p.jsonl").row(0) == row
    assert row.details() == {"counts": {"dog": 2}, "place": "a park"}


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("p.json", '{"prompt": "a dog"}', "no list of prompts"),
        ("p.json", "[]", "holds no prompt"),
        ("p.json", "[1]", "is no prompt"),
        ("p.json", '["a dog"', "cannot be read"),
        ("p.json", "[" * 100_000, "cannot be read"),
        ("p.jsonl", '{"prompt": "a dog", "seed": "x"}', "seed 'x'"),
        ("p.jsonl", '{"prompt": "a dog", "seed": true}', "seed 'True'"),
        ("p.jsonl", '{"prompt": "a dog", "seed": -1}', "seed '-1'"),
        ("p.jsonl", '{"prompt": "a dog", "labels": "dog"}', "labels 'dog'"),
        ("p.jsonl", '{"prompt": "a dog", "labels": [1]}', "labels.0 '1'"),
        ("p.jsonl", '{"prompt": "a dog", "negative": 5}', "negative '5'"),
        ("p.jsonl", '{"prompt": "a dog", "origin": "caption"}', "origin 'caption'"),
        ("p.jsonl", '{"prompt": "\\ud800"}', "is no prompt"),
        ("p.jsonl", '\n{"prompt": "a dog"', "line 2"),
        ("p.csv", "id,name\n1,a dog\n", "no column holds prompts: 'id,name'"),
        ("p.csv", "prompt,id\n,1\n", "is no prompt"),
        ("p.csv", "prompt,id\na dog, in a park,1\n", "line 2 has 3 cells"),
        ("p.csv", "", "no column holds prompts"),
    ],
)
def test_bad_rows_name_their_place(name: str, text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        texts(str(tmp_path / name))
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_rows_in_any_order_are_those_of_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was read before, also beyond the end, and across the blocks in which the file is read."""
    monkeypatch.setattr(files, "MARK_EVERY", 8)
    monkeypatch.setattr(files, "BLOCK", 64)
    words = [f"a dog\nnumber {i}" if name == "p.csv" and i % 3 == 0 else f"dog {i}" for i in range(100)]
    lines = {"p.txt": words, "p.jsonl": [json.dumps(w) for w in words], "p.csv": [f'"{w}",x' for w in words]}[name]
    gaps = ["", "# no"] if name == "p.txt" else [""]
    (tmp_path / name).write_text("\n".join(["prompt,x"] * (name == "p.csv") + [x for w in lines for x in (w, *gaps)]))
    expected = [" ".join(w.split()) for w in words]
    opened = PromptFile(tmp_path / name)
    for i in (50, 3, 4, 90, 17, 99, 0):
        assert opened.row(i).prompt == expected[i]
    assert opened.count is None
    assert opened.row(203).prompt == expected[3] and opened.count == 100
    assert [r.prompt for r in opened] == expected


def test_an_error_in_one_row_does_not_move_the_others(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"a dog\n\xff\na cat\n")
    opened = PromptFile(tmp_path / "p.txt")
    for _ in range(2):
        with pytest.raises(ConfigError, match="line 2"):
            opened.row(1)
        assert opened.row(0).prompt == "a dog" and opened.count is None


def test_a_long_file_gives_any_prompt_at_once_and_tells_how_far_it_is(tmp_path: Path) -> None:
    """20 MB of lines: the first without reading on, one of the last by reading on once."""
    path = tmp_path / "p.txt"
    path.write_bytes(b"a photo of a dog\n" * 1_200_000)
    reported: list[int] = []
    start = time.process_time()
    opened = PromptFile(path, lambda done, total: reported.append(done))
    assert opened.row(0).prompt == "a photo of a dog"
    assert time.process_time() - start < 0.1 and not reported
    tracemalloc.start()
    opened.row(10_000)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    assert reported == sorted(reported) and len(reported) == 10 and reported[-1] == path.stat().st_size
    assert opened.origin() == {"file": ".txt", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_prompts_that_name_no_label() -> None:
    rows = [PromptRow(prompt="a dog"), PromptRow(prompt="a spaceship")]
    assert nameless(rows, LABELS) == ["a spaceship"]
    assert nameless([PromptRow(prompt="a labrador", labels=("Puppy",))], LABELS) == []


def test_own_labels_go_before_words_and_words_that_were_cut_do_not_count() -> None:
    breed = PromptRow(prompt="a labrador under the sky", labels=("puppy", "cow"))
    assert asked_labels(breed, breed.prompt, LABELS) == ("dog",)
    plain = PromptRow(prompt="grass under the sky with a dog")
    assert asked_labels(plain, plain.prompt, LABELS) == ("sky", "dog", "grass")
    assert asked_labels(plain, "grass under the sky", LABELS) == ("sky", "grass")
    both = PromptRow(prompt="grass under the sky with a dog", labels=("dog", "grass"))
    assert asked_labels(both, "grass under the sky", LABELS) == ("grass",)


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
    assert all(MINI.named_in(p) for p in prompts)
    named = {n for p in prompts for n in MINI.named_in(p)}
    assert set(MINI.names[:18]) <= named, "every thing of the world is drawn"
    assert not any("  " in p or " a orange" in f" {p}" for p in prompts)


def test_a_prompt_that_utf8_cannot_hold_is_named() -> None:
    """As a shell passes on the bytes of a Latin-1 text."""
    with pytest.raises(DataError, match="with a dog' cannot be written as UTF-8"):
        open_prompts(["a cat", b"a caf\xe9 with a dog".decode("utf-8", "surrogateescape")])
