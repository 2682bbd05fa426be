"""The gains of all tables as one SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, LINE, TITLE = 720, 190, 690, 22, 34
"""Pixels: the image's width, where the axis begins and ends, the height of a row and of a title."""
BETTER, WORSE, UNSURE = "#15803d", "#b91c1c", "#64748b"
"""Colours of gains whose interval lies above zero, below it, or holds it."""


def plot_gains(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Gains over real only in points with their intervals; empty if there is none.

    Args:
        tables: by title, by row, as `report.results` has it.
    """
    shown = {t: {r: v["gain"] for r, v in rows.items() if v["gain"] is not None} for t, rows in tables.items()}
    shown = {title: rows for title, rows in shown.items() if rows}
    if not shown:
        return ""
    height = sum(TITLE + LINE * (len(rows) + 1) for rows in shown.values()) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    top = 0
    for title, rows in shown.items():
        parts += _panel(title, rows, top)
        top += TITLE + LINE * (len(rows) + 1)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(title: str, rows: Mapping[str, Mapping[str, Any]], top: int) -> list[str]:
    """One table: a dot and a line per row."""
    low = 100 * min(0.0, *(v["low"] for v in rows.values()))
    high = 100 * max(0.0, *(v["high"] for v in rows.values()))
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, high + room

    def x(points: float) -> float:
        return LEFT + (RIGHT - LEFT) * (points - low) / (high - low)

    bottom = top + TITLE + LINE * len(rows)
    parts = [f'<text x="10" y="{top + 24}" font-weight="bold">{escape(title)}</text>']
    parts.append(f'<path d="M{x(0):.1f} {top + TITLE}V{bottom}" stroke="#999"/>')
    for i, (name, gain) in enumerate(rows.items()):
        y = top + TITLE + LINE * i + LINE / 2
        colour = BETTER if gain["low"] > 0 else WORSE if gain["high"] < 0 else UNSURE
        ends, middle = [x(100 * gain[k]) for k in ("low", "high")], x(100 * gain["gain"])
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<path d="M{ends[0]:.1f} {y:.0f}H{ends[1]:.1f}" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<circle cx="{middle:.1f}" cy="{y:.0f}" r="5" fill="{colour}"/>')
    for points in (low + room, 0.0, high - room):
        if points == 0 or abs(x(points) - x(0)) > 40:
            parts.append(f'<text x="{x(points):.0f}" y="{bottom + 15}" text-anchor="middle">{points:+.1f}</text>')
    return parts
