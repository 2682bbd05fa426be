"""Plain words: folders of the source that use the field's terms stay so. Names, docstrings, comments and messages are read."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "datasetdm"

CLEAN = (
    "__init__.py",
    "errors.py",
    "backbones",
    "cli",
    "decoder",
    "metrics",
    "pipelines",
    "records",
    "training",
    "transforms",
    "viewer",
)
"""Folders and files of `src/datasetdm` without any of these words."""

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


def findings(path: Path) -> list[str]:
    """Every coined word of a file, with its place and the better word."""
    return [
        f"{path}:{line}: {found[0]!r}, write {better}"
        for line, text in words_of(path)
        for word, better in COINED.items()
        for found in re.finditer(rf"(?<![A-Za-z])(?:{word})(?![a-z])", text)
    ]


def files_of(place: Path) -> list[Path]:
    """A file, or the text files of a folder."""
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    return [p for p in files if p.suffix in {".py", ".js", ".html", ".css", ".j2", ".yaml"}]


@pytest.mark.parametrize("place", CLEAN)
def test_no_coined_word_is_left(place: str) -> None:
    files = files_of(SOURCE / place)
    assert files
    found = [text for path in files for text in findings(path)]
    assert not found, "\n".join(found)


def test_coined_words_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        '"""A\npicture."""\nbones = gather(x)  # what the map is told\nimage = f"{y} drawn"\ngather = x.gather(1)\n'
    )
    assert [t.split(": ")[0].rsplit(":")[-1] for t in findings(path)] == ["2", "3", "3", "3", "4"]
