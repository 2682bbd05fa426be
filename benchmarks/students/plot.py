"""The gains of all tables as one SVG, and the curves as another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


# ---------------------------------------------------------------------- curves
COLOURS = {"real": "#64748b", "both": "#2563eb", "true_renders": "#d97706"}
"""By row."""
PANEL, SIDE, TOP, BOTTOM = 360, 46, 34, 62
"""Pixels: the width of a panel, and its margins."""


def plot_curves(curves: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Figures over the values of a setting, equally far apart, one line per row; empty if no panel has two points.

    Args:
        curves: by title, by row, points as `curve_page.curve_points` has them.
    """
    shown = {t: rows for t, rows in curves.items() if sum(p["mean"] is not None for r in rows.values() for p in r) > 1}
    if not shown:
        return ""
    height = -(-len(shown) // 2) * (PANEL - 60)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * PANEL} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{2 * PANEL}" height="{height}" fill="white"/>',
    ]
    for i, (title, rows) in enumerate(shown.items()):
        parts.append(f'<g transform="translate({i % 2 * PANEL} {i // 2 * (PANEL - 60)})">')
        parts += [*_curve_panel(title, rows), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve_panel(title: str, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """One curve: a line of dots per row, and its name."""
    bottom = PANEL - 60 - BOTTOM
    values = list(dict.fromkeys(p["at"] for points in rows.values() for p in points))
    known = [p for points in rows.values() for p in points if p["mean"] is not None]
    low, high = min(p["mean"] for p in known), max(p["mean"] for p in known)
    low, high = low - 0.01, high + 0.01

    def x(value: Any) -> float:
        return SIDE + 24 + (PANEL - 2 * SIDE - 24) * values.index(value) / max(1, len(values) - 1)

    def y(figure: float) -> float:
        return bottom - (bottom - TOP) * (figure - low) / (high - low)

    parts = [
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{SIDE} {TOP}V{bottom}H{PANEL - 10}" fill="none" stroke="#999"/>',
        *(
            f'<text x="{SIDE - 4}" y="{y(f) + 4:.0f}" text-anchor="end">{f:.3f}</text>'
            for f in (low + 0.01, high - 0.01)
        ),
        *(f'<text x="{x(v):.0f}" y="{bottom + 16}" text-anchor="middle">{escape(str(v))}</text>' for v in values),
    ]
    for i, (name, points) in enumerate(rows.items()):
        there = [(x(p["at"]), y(p["mean"])) for p in points if p["mean"] is not None]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in there)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{COLOURS[name]}"/>' for a, b in there]
        parts.append(f'<text x="{SIDE + 100 * i}" y="{bottom + 42}" fill="{COLOURS[name]}">{escape(name)}</text>')
    return parts
