"""Plain words: the source uses the field's terms. Names, docstrings, comments and messages are read."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COINED = {
    r"HEARD|hear|hears|heard": "CAPTION_GAIN",
    r"UNSEEN(?!_WORD)": "UNSEEN_WORD_WEIGHT",
    r"NAMED|FITTED": "DecoderInput.mentioned, DecoderInput.in_vocabulary",
    r"told|untold": "with caption labels, without caption labels",
    r"_?doubted": "corrupt_mentions",
    r"wordless|unsaid|undrawn|uncaptioned": "drop_text, drop_mention, false_mention, drop_caption",
    r"tuned?": "calibrate",
    r"calibrated(?=\()": "platt_scaling",
    r"blank(?=\()": "fill_values",
    r"record(?=\()": "postprocess",
    r"before(?=[\[(])": "previous",
    r"prepare(?=\()": "a transform",
    r"zoomed": "rescale_target",
    r"Given": "InMemoryReader",
    r"Checked|_met|strays": "ValidatingReader, _report, orphan_errors",
    r"bones?": "skeleton, edges",
    r"_certain|_sure|_renamed|_kept": "a transform: FilterByScore, MaskByConfidence, RemapLabels",
    r"tame": "normalise_outlier_channels",
    r"(?<!\.)gather(?=\()": "group_instances",
    r"drawn": "generated, sampled",
    r"a share of": "a fraction of",
    r"pictures?|Pictures?": "image, images",
}
"""Words that this project once coined -> what to write instead."""

WORD = r"(?<![A-Za-z])(?:{})(?![a-z])"
ANY = re.compile(WORD.format("|".join(COINED)))

KEPT = {
    "src/datasetdm/prompts/grammar.py": {"picture"},  # the opening of prompts that the embedded model was trained on
    "src/datasetdm/readers/formats/hf.py": {"picture"},  # a column's name in other people's data
    # keys of result files, which stay as they are
    "benchmarks/ablations.py": {"told"},
    "benchmarks/baselines/words.py": {"pictures"},
    "benchmarks/generated.py": {"drawn"},
    "benchmarks/spine.py": {"_sure", "pictures"},
    "benchmarks/tasks.py": {"pictures", "told", "untold"},
    "benchmarks/throughput.py": {"picture"},
    "miniworld/score/__main__.py": {"picture"},
    # captions of the world's versions
    "miniworld/captions.py": {"picture"},
    "miniworld/tests/test_samples.py": {"picture"},
    # pictures on a wall or a screen
    "miniworld/categories/tv.py": {"picture"},
    "miniworld/surroundings/indoors.py": {"pictures"},
    "miniworld/surroundings/walls.py": {"picture", "pictures"},
    "miniworld/textures.py": {"picture"},
}
"""File -> the words that are right there."""


def words_of(path: Path) -> list[tuple[int, str]]:
    """(line, text) of every name, string and comment of a Python file; every line of another."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    kinds = {tokenize.NAME, tokenize.STRING, tokenize.COMMENT} | {getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    found = []
    for i, token in enumerate(tokens):
        words = token.string
        if token.type == tokenize.NAME:  # with the signs around it that make it a method or a call
            words = (
                "." * (tokens[i - 1].string == ".")
                + words
                + (tokens[i + 1].string if tokens[i + 1].string in "([" else "")
            )
        if token.type in kinds:
            found += [(token.start[0] + n, line) for n, line in enumerate(words.splitlines())]
    return found


def findings(path: Path) -> list[tuple[int, str, str]]:
    """(line, word, better word) of every coined word of a file."""
    if not ANY.search(path.read_text(encoding="utf-8")):
        return []
    return [
        (line, found[0], better)
        for line, text in words_of(path)
        for word, better in COINED.items()
        for found in re.finditer(WORD.format(word), text)
    ]


@pytest.mark.parametrize("folder", ["src", "benchmarks", "miniworld", "examples"])
def test_no_coined_word_is_left(folder: str) -> None:
    files = [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".js", ".html", ".css", ".j2", ".yaml"}]
    assert files
    wrong, seen = [], {}
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        for line, word, better in findings(path):
            seen.setdefault(name, set()).add(word)
            if word not in KEPT.get(name, ()):
                wrong.append(f"{name}:{line}: {word!r}, write {better}")
    assert not wrong, "\n".join(wrong)
    assert seen == {name: words for name, words in KEPT.items() if name.startswith(f"{folder}/")}


def test_coined_words_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        '"""A\npicture."""\nbones = gather(x)  # what the map is told\nimage = f"{y} drawn"\ngather = x.gather(1)\n'
    )
    assert [line for line, _, _ in findings(path)] == [2, 3, 3, 3, 4]
