"""JSON files with long lists, written item by item: memory does not grow with the number of samples."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import IO, Any


class JsonLists:
    """`{**head, "a": [...], "b": [...]}` whose lists grow by `add`; a context manager that writes the file at its end.

    Args:
        path: of the file.
        names: of the lists, in the order in which the file has them; one without a name is the file.
    """

    def __init__(self, path: Path, *names: str):
        self.path, self.head = path, dict[str, Any]()
        self.count: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parts: dict[str, IO[str]] = {
            n: tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115  (closed at the end)
            for n in names
        }

    def add(self, name: str, item: Any) -> None:
        """Append to a list."""
        self._parts[name].write((",\n" if self.count[name] else "") + json.dumps(item, ensure_ascii=False))
        self.count[name] += 1

    def __enter__(self) -> JsonLists:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                with self.path.open("w", encoding="utf-8") as out:
                    self._assemble(out)
        finally:
            for part in self._parts.values():
                part.close()

    def _assemble(self, out: IO[str]) -> None:
        if "" in self._parts:
            self._copy("", out)
            out.write("\n")
            return
        out.write("{")
        between = ""
        for name, value in self.head.items():
            out.write(f"{between}{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
            between = ",\n"
        for name in self._parts:
            out.write(f"{between}{json.dumps(name)}: ")
            self._copy(name, out)
            between = ",\n"
        out.write("}\n")

    def _copy(self, name: str, out: IO[str]) -> None:
        part = self._parts[name]
        part.seek(0)
        out.write("[")
        shutil.copyfileobj(part, out)
        out.write("]")
