"""Prompt files of any length: text, JSON, JSON lines, CSV and TSV.

Only JSON is held as a whole. Any row of the others is found by reading on from the nearest place that was seen before, so the
first one of millions is there at once.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError
from datasetdm.io.files import parse_json
from datasetdm.prompts.rows import TEXT_FIELDS, PromptRow, parse_row

SUFFIXES = (".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv")

BLOCK = 1 << 16
"""Bytes that are read at a time."""
MAX_LINE = 1 << 20
"""Bytes of one line."""
MARK_EVERY = 1024
"""Rows between two places of a file that are remembered."""
MAX_JSON = 1 << 26
"""Bytes of a JSON file."""

OnRead = Callable[[int, int], None]
"""Receives (bytes read, bytes in all) while much is read."""


class PromptFile:
    """The rows of a prompt file by number, in turn for ever.

    A text file has one prompt per line (lines end at newlines only; empty ones and those that begin with `#` are skipped).
    JSON is a list, JSON lines one value per line: texts, or the fields of `PromptRow`. CSV and TSV have these fields as
    columns; labels are separated by `;`, or by `,`.

    Args:
        path: the file; its suffix says the format.
        on_read: receives (bytes read, bytes in all) while much is read.

    Raises:
        ConfigError: a file that is no such text, holds no prompt or, when it is reached, a row that is none, with its line.
    """

    def __init__(self, path: Path, on_read: OnRead = lambda done, total: None):
        self.path, self.on_read = path, on_read
        self.count: int | None = None
        """Number of rows, as soon as the end was seen."""
        self._values: list[Any] | None = None
        try:
            self._size = path.stat().st_size
            with path.open("rb") as file:
                _check_text(file.read(BLOCK), path)
            if self.kind == ".json":
                self._values = self._whole_json()
                self.count = len(self._values)
            else:
                self._begin()
        except (OSError, ValueError, csv.Error) as e:
            raise self._unreadable(e) from e
        self.row(0)  # an empty file is an error now

    @property
    def kind(self) -> str:
        """The suffix, in small letters."""
        return self.path.suffix.lower().replace(".ndjson", ".jsonl")

    def fingerprint(self) -> str:
        """SHA-256 of the file's bytes."""
        h, done = hashlib.sha256(), 0
        with self.path.open("rb") as file:
            while block := file.read(MAX_LINE):
                h.update(block)
                done += len(block)
                self.on_read(done, self._size)
        return h.hexdigest()

    def origin(self) -> dict[str, Any]:
        """What all rows depend on, JSON-ready."""
        return {"file": self.kind or ".txt", "sha256": self.fingerprint()}

    def __iter__(self) -> Iterator[PromptRow]:
        """Every row once."""
        index = 0
        while self.count is None or index < self.count:
            row = self.row(index)
            if self.count is None or index < self.count:
                yield row
            index += 1

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """Row `index`, counted on from the first one after the last; the seed changes nothing."""
        if self._values is not None:
            index %= len(self._values)
            return parse_row(self._values[index], f"{self.path}, entry {index + 1}")
        try:
            found = self._find(index)
            if found is None and self.count:
                found = self._find(index % self.count)
        except (OSError, ValueError, csv.Error) as e:
            self._read_from(0)
            raise self._unreadable(e) from e
        if found is None:
            raise ConfigError("the prompt file holds no prompt", where=self.path, expected="one prompt per line")
        return parse_row(*found)

    # ------------------------------------------------------------------ formats
    def _whole_json(self) -> list[Any]:
        if self._size > MAX_JSON:
            raise ConfigError(
                f"a JSON file of {self._size / 1e6:.0f} MB", where=self.path,
                expected=f"at most {MAX_JSON / 1e6:.0f} MB", remedy="write JSON lines: one value per line, in a .jsonl file",
            )  # fmt: skip
        content = parse_json(self.path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            content = content.get("prompts")
        if not isinstance(content, list):
            expected = '["a dog", ...] or [{"prompt": "a dog"}, ...]'
            raise ConfigError("the file holds no list of prompts", where=self.path, expected=expected)
        if not content:
            raise ConfigError("the prompt file holds no prompt", where=self.path, expected="a list of one or more")
        return content

    def _begin(self) -> None:
        """Read the header of a table, and remember where the first row is."""
        lines = _Lines(self.path)
        self._columns: list[str] = []
        if self.kind in (".csv", ".tsv"):
            header = next(lines, "").strip("\r\n")
            own = "\t" if self.kind == ".tsv" else ","
            tables = {
                d: [c.strip().lower() for c in next(csv.reader([header], delimiter=d), [])] for d in (own, *",;\t")
            }
            self._delimiter = next((d for d in tables if {*TEXT_FIELDS} & {*tables[d]}), None)
            if self._delimiter is None:
                raise ConfigError(
                    f"no column holds prompts: {header[:80]!r}",
                    where=self.path,
                    expected=f"a first line with a column {' or '.join(TEXT_FIELDS[:3])}",
                )
            self._columns = tables[self._delimiter]
        self._marks = [(lines.offset, lines.number)]
        self._read_from(0)

    def _read_from(self, mark: int) -> None:
        self._lines = _Lines(self.path, *self._marks[mark])
        self._next = mark * MARK_EVERY
        self._records = self._iter_records(self._lines)

    def _iter_records(self, lines: _Lines) -> Iterator[Any]:
        if self._columns:
            yield from (r for r in csv.reader(lines, delimiter=self._delimiter or ",") if any(map(str.strip, r)))
        else:
            stripped = (line.strip() for line in lines)
            comment = "#" if self.kind != ".jsonl" else "\n"
            yield from (line for line in stripped if line and not line.startswith(comment))

    def _find(self, index: int) -> tuple[Any, str] | None:
        """(value, place) of a row; None after the last one, whose number is then known."""
        mark = min(index // MARK_EVERY, len(self._marks) - 1)
        if index < self._next or mark * MARK_EVERY > self._next:
            self._read_from(mark)
        far = index - self._next > 8 * MARK_EVERY
        for record in self._records:
            number, self._next = self._next, self._next + 1
            if number == index:
                if far:
                    self.on_read(self._size, self._size)
                return self._value(record), f"{self.path}, line {self._lines.number}"
            if self._next == len(self._marks) * MARK_EVERY:
                self._marks.append((self._lines.offset, self._lines.number))
                if far:
                    self.on_read(self._lines.offset, self._size)
        self.count = self._next
        return None

    def _value(self, record: Any) -> Any:
        """A record as `parse_row` takes it."""
        if self.kind == ".jsonl":
            try:
                return parse_json(record)
            except ValueError as e:
                raise ValueError(f"line {self._lines.number}: {e}") from e
        if not self._columns:
            return record
        if any(map(str.strip, record[len(self._columns) :])):
            raise ValueError(
                f"line {self._lines.number} has {len(record)} cells, the first line {len(self._columns)}: "
                "texts with a comma in them stand in quotes"
            )
        cells: dict[str, Any] = {c: v for c, v in zip(self._columns, record, strict=False) if v.strip()}
        for field in ("labels", "counts"):
            if field in cells and cells[field].lstrip().startswith(("[", "{")):
                cells[field] = parse_json(cells[field])
            elif field == "labels" and field in cells:
                words = cells[field].split(";" if ";" in cells[field] else ",")
                cells[field] = [w.strip() for w in words if w.strip()]
        return cells

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"the prompt file cannot be read: {error}",
            where=self.path,
            expected=f"UTF-8, {self.kind[1:] or 'text'}",
            remedy="one prompt per line in a .txt file, or JSON, JSON lines, CSV or TSV",
        )


class _Lines:
    """The lines of a file from a place on, decoded; lines end at LF, CR or both.

    offset: bytes up to the end of the last line. number: of the last line.
    """

    def __init__(self, path: Path, offset: int = 0, number: int = 0):
        self.offset, self.number = offset, number
        self._pieces = _pieces(path, offset)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        self.offset += len(piece)
        self.number += 1
        try:
            return piece.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise ValueError(f"line {self.number} is not UTF-8; save the file as UTF-8") from e


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while block := file.read(BLOCK):
            pieces = (rest + block).splitlines(keepends=True)
            rest = b"" if pieces[-1].endswith(b"\n") else pieces.pop()
            yield from pieces
            if len(rest) > MAX_LINE:
                raise ValueError(f"a line has more than {MAX_LINE} bytes")
        yield from rest.splitlines(keepends=True)


def _check_text(head: bytes, path: Path) -> None:
    """Raises ConfigError for what is no text at first sight, and for JSON in a file that is named as text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("the file is UTF-16", where=path, expected="UTF-8", remedy="save it as UTF-8")
    if b"\0" in head:
        raise ConfigError("the file is no text", where=path, expected=f"text, or one of: {', '.join(SUFFIXES)}")
    if path.suffix.lower() in SUFFIXES[1:]:
        return
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0].strip()
    with contextlib.suppress(ValueError):
        if first == b"[" or isinstance(parse_json(first), dict | list):
            name = ".json" if first.startswith(b"[") else ".jsonl"
            raise ConfigError("the file holds JSON", where=path, remedy=f"give its name the suffix {name}")
