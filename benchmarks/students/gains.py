"""Figures of the rows that are there: means over seeds, and gains with a bootstrap interval."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.students.figures import Judge, evidence_of
from benchmarks.students.rows import Bench, needs_of
from benchmarks.students.tables import REAL, ROWS, TABLES

INTERVAL = (2.5, 97.5)
"""Percentiles of the gain over resampled test images."""


@dataclass(frozen=True)
class Found:
    """A result that is there, and its figures over resampled test images."""

    value: Mapping[str, Any]
    judge: Judge

    @property
    def figure(self) -> float:
        """Over all test images."""
        return self.value["figure"]

    @cached_property
    def resampled(self) -> np.ndarray:
        """f[resamples]."""
        return self.judge.resampled(evidence_of(self.value))


By = Mapping[str, Mapping[int, Found]]
"""By row, by seed."""


def found_rows(bench: Bench, table: str, seeds: Sequence[int]) -> By:
    """The results of a table that are there."""
    own = {} if needs_of(table) else TABLES[table].rows
    return {r: found_row(bench, table, r, seeds) if r in own else {} for r in ROWS}


def found_row(bench: Bench, table: str, row: str, seeds: Sequence[int]) -> dict[int, Found]:
    """The results of a row that are there, by seed."""
    values = {s: bench.find(table, row, s) for s in seeds}
    return {s: Found(v, TABLES[table].judge) for s, v in values.items() if v is not None}


def difference(row: Mapping[int, Found], base: Mapping[int, Found]) -> dict[str, Any] | None:
    """By how much `row` is better than `base`, as a mean over common seeds, and its interval over resampled test images; None
    without a common seed."""
    common = sorted(row.keys() & base.keys())
    if not common:
        return None
    sign = 1 if row[common[0]].judge.more else -1
    gain = statistics.fmean(sign * (row[s].figure - base[s].figure) for s in common)
    sampled = np.mean([sign * (row[s].resampled - base[s].resampled) for s in common], 0)
    low, high = np.percentile(sampled, INTERVAL)
    own, other = (statistics.fmean(by[s].figure for s in common) for by in (row, base))
    ratio = own / other if other else None
    return {"gain": gain, "low": float(low), "high": float(high), "ratio": ratio, "seeds": common}


def results(bench: Bench, table: str, found: By) -> dict[str, dict[str, Any]]:
    """By row: what `summary` gives, and why a row is not there."""
    rows = {}
    for name in ROWS:
        needs, left_out = needs_of(table), dict(TABLES[table].left_out).get(name)
        rows[name] = {
            **summary(bench, table, name, found[name], found[REAL]),
            **({"needs": needs} if needs else {}),
            **({"left_out": left_out} if left_out else {}),
        }
    return rows


def summary(
    bench: Bench, table: str, row: str, found: Mapping[int, Found], base: Mapping[int, Found]
) -> dict[str, Any]:
    """Mean over seeds, sample deviation, the seeds, mean seconds, the results' files, the gain over `base`; null for what was
    not measured."""
    own = [f.value for f in found.values()]
    figures = [v["figure"] for v in own]
    details = [v.get("details", {}) for v in own]
    return {
        "mean": statistics.fmean(figures) if figures else None,
        "deviation": statistics.stdev(figures) if len(figures) > 1 else None,
        "seeds": [v["seed"] for v in own],
        "seconds": statistics.fmean(v["seconds"] for v in own) if own else None,
        "metric": TABLES[table].metric,
        "files": [f"{bench.name(table, row, v['seed'])}.json" for v in own],
        "gain": None if row == REAL else difference(found, base),
        "details": {k: statistics.fmean(d[k] for d in details) for k in (details[0] if details else ())},
    }


def points(found: Mapping[str, Any] | None) -> str:
    """A difference in points with its interval."""
    return (
        "" if found is None else f"{100 * found['gain']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    )
