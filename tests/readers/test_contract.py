"""What every reader promises. A new format is in `READERS`, and so in these tests; `labelled.MAKERS` makes data of it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from datasetdm.errors import ConfigError, DatasetDMError
from datasetdm.readers import READERS, Reader, read
from datasetdm.readers.formats.images import ImagesSource
from datasetdm.readers.layouts import layout
from datasetdm.readers.overview import summarise
from datasetdm.readers.source import ValidatingReader
from datasetdm.transforms.choose import Choose
from labelled import MAKERS


@pytest.fixture(params=sorted(READERS))
def any_reader(request: pytest.FixtureRequest, tmp_path: Path) -> ValidatingReader:
    """Every reader, on data of its own; a new one is in the table and so in these tests."""
    return read(f"{request.param}:{MAKERS[request.param](tmp_path)}")


def test_contract(any_reader: ValidatingReader) -> None:
    """What every reader promises; a new one is in the table and so in this test."""
    assert isinstance(any_reader, Reader)
    first, second = list(any_reader), list(any_reader)
    assert len(first) == len(any_reader) > 0
    assert [a.digest() for a in first] == [b.digest() for b in second]
    assert len({s.key for s in first}) == len(first)
    for sample in first:
        assert sample.labels == any_reader.labels
        assert sample.annotated or isinstance(any_reader.source, ImagesSource)
    summary = summarise(first, any_reader.labels)
    assert summary.samples == len(first) == sum(summary.sizes.values())
    few = Choose(limit=1, balance=True).select(any_reader)
    assert len(list(few)) == len(few) == 1 and isinstance(few, Reader)


@pytest.mark.parametrize("format", sorted(set(READERS) - {"mini"}))
def test_a_damaged_file_never_changes_a_label(format: str, tmp_path: Path) -> None:
    """Whatever file is cut in half: an error, or a skipped sample, or what remains is as it was."""
    path = MAKERS[format](tmp_path)
    whole = {s.key: s.digest() for s in read(f"{format}:{path}")}
    files = [
        p for p in sorted(tmp_path.rglob("*")) if p.suffix in (".png", ".jpg", ".json", ".xml", ".parquet", ".arrow")
    ]
    stopped = 0
    for file in files:
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        try:
            reader = read(f"{format}:{path}", on_error="skip")
            left = {s.key: s.digest() for s in reader}
            assert left.items() <= whole.items(), file
            assert len(left) == len(reader) and len(left) + len(reader.skipped) >= len(whole), file
            stopped += bool(reader.skipped)
        except DatasetDMError:
            stopped += 1
        with contextlib.suppress(DatasetDMError):
            assert {s.key: s.digest() for s in read(f"{format}:{path}")} == whole, file
        file.write_bytes(data)
    assert stopped


@pytest.mark.parametrize("format", READERS)
def test_a_layout_draws_files_that_the_format_has(format: str) -> None:
    drawn = layout(format)
    assert all(len(line) <= 132 for line in drawn.splitlines())
    assert re.search(r"\.(json|png|jpg|parquet|yaml|arrow)\b", drawn)
    with pytest.raises(ConfigError, match="unknown format"):
        layout(format + "x")
