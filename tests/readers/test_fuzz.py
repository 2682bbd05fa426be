"""Wrong entries anywhere in an annotation file: an error that says so, or the truth; never a crash."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasetdm.errors import DatasetDMError
from datasetdm.readers import read
from labelled import MAKERS

WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from(
        [10**30, -1, 0, float("nan"), float("inf"), 0.5, "", "x", "../a.png", "\0", [], {}, [[]], ["x"], {"a": 1}]
    ),
)
FILES = {"coco": "annotations.json", "coco-panoptic": "panoptic.json", "lvis": "lvis.json"}
FILES |= {"masks": "classes.json", "deepfashion": "captions.json", "hf": "id2label.json"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of nested JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield (*path, key)
        yield from places(entry, (*path, key))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path, Any]]:
    """Format -> what to read, its JSON file, and what a good one holds."""
    found = {}
    for format, name in FILES.items():
        path = Path(str(MAKERS[format](tmp_path_factory.mktemp(format))))
        file = path if path.is_file() else path / name
        found[format] = f"{format}:{path}", file, json.loads(file.read_text())
    return found


@pytest.mark.parametrize("format", sorted(FILES))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wrong_entries(format: str, made: dict[str, tuple[str, Path, Any]], data: st.DataObject) -> None:
    name, file, good = made[format]
    content = copy.deepcopy(good)
    for way in data.draw(st.lists(st.sampled_from(sorted(places(good), key=str)), min_size=1, max_size=2)):
        try:
            target = content
            for key in way[:-1]:
                target = target[key]
            if data.draw(st.booleans()):
                target[way[-1]] = data.draw(WRONG)
            else:
                del target[way[-1]]
        except (LookupError, TypeError):
            pass  # the first change took the second one's place away
    file.write_text(json.dumps(content))
    for on_error in ("stop", "skip"):
        try:
            assert list(read(name, file.parent if format == "lvis" else None, on_error))
        except DatasetDMError as e:
            assert e.what and "\n" not in e.what


@settings(max_examples=25, deadline=None)
@given(text=st.text(max_size=40), cut=st.integers(0, 400))
def test_any_text_as_xml_or_lines(text: str, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """VOC's XML and YOLO's lines with a piece replaced."""
    for format, name in (("voc", "Annotations/b.xml"), ("yolo", "labels/train/a.txt")):
        folder = tmp_path_factory.mktemp(format)
        path = MAKERS[format](folder)
        file = folder / name
        told = file.read_text()
        file.write_text(
            told[: cut % len(told)] + text + told[cut % len(told) + len(text) :], encoding="utf-8", errors="replace"
        )
        try:
            assert list(read(f"{format}:{path}" + ("@boxes" if format == "voc" else "")))
        except DatasetDMError as e:
            assert e.what
