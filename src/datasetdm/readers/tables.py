"""Parquet files as one numbered list of rows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datasetdm.errors import DataError


class Rows:
    """`rows[i]` is (row, its file). The file that was read last is kept, so that reading in order reads each once."""

    def __init__(self, files: Sequence[Path], counts: Sequence[int]):
        self._files, self._ends = files, list(accumulate(counts))
        self._open: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Path]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        if self._open is None or self._open[0] != number:
            self._open = number, self._read(number)
        start = self._ends[number - 1] if number else 0
        return self._open[1].slice(index - start, 1).to_pylist()[0], self._files[number]

    def _read(self, number: int) -> pa.Table:
        try:
            table = pq.read_table(self._files[number])
            table.validate(full=True)
            return table
        except (OSError, pa.ArrowException, MemoryError) as e:
            what = f"a file cannot be read: {(str(e) or repr(e)).splitlines()[0]}"
            raise DataError(what, where=self._files[number], expected="a whole Parquet file") from e
