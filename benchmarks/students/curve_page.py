"""The curves on the page: a table per curve, and the commands of the points that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.students.curves import CURVES, needs_of
from benchmarks.students.gains import found_row, points, summary
from benchmarks.students.rows import Bench
from benchmarks.students.tables import REAL, ROWS, TABLES


def curve_points(bench: Bench, curve: str) -> dict[str, list[dict[str, Any]]]:
    """By row: its values (`at`) with what `gains.summary` gives, in order."""
    own = CURVES[curve]
    seeds = range(TABLES[own.table].seeds)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row, values in own.values.items():
        rows[row] = []
        for value in values:
            there = own.at(bench, value) if not needs_of(curve, value) else None
            found = found_row(there, own.table, row, seeds) if there else {}
            base = found_row(there if there and own.own_base else bench, own.table, REAL, seeds)
            rows[row].append({"at": value, **summary(there or bench, own.table, row, found, base)})
    return rows


def curve_lines(curve: str, rows: Mapping[str, Sequence[Mapping[str, Any]]], images: int) -> list[str]:
    """A Markdown table with one column per row, and commands. rows: as `curve_points` has them."""
    own = CURVES[curve]
    values = list(dict.fromkeys(p["at"] for points in rows.values() for p in points))
    lines = [
        f"### {own.title}",
        "",
        f"Of the table `{own.table}`. " + "; ".join(f"`{row}`: {ROWS[row].title}" for row in rows) + ".",
        "",
        f"| {own.axis} | " + " | ".join(f"`{row}`" for row in rows) + " |",
        "|---" * (1 + len(rows)) + "|",
    ]
    missing: list[str] = []
    for value in values:
        cells = []
        for row in rows:
            point = next((p for p in rows[row] if p["at"] == value), None)
            cells.append("" if point is None else _cell(point))
            if point is not None and not point["seeds"]:
                needs = needs_of(curve, value)
                command = f"python -m benchmarks.students --curve {curve} --at {value} --row {row} --images {images}"
                missing += [f"{needs.strip('`')}  # first" if needs else "", command]
        lines.append(f"| {value} | " + " | ".join(cells) + " |")
    commands = [line for line in missing if line]
    return [
        *lines,
        "",
        *(["Not measured yet, and what measures it:", "", "```sh", *commands, "```", ""] if commands else []),
    ]


def _cell(point: Mapping[str, Any]) -> str:
    if point["mean"] is None:
        return "not measured yet"
    seeds = ", ".join(map(str, point["seeds"]))
    gain = f", {points(point['gain'])}" if point["gain"] else ""
    return f"{point['mean']:.3f}{gain}, " + (f"seed {seeds}" if len(point["seeds"]) == 1 else f"seeds {seeds}")
