"""A mask as one closed polygon along the edges of its pixels, exact for masks with holes and several parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

Corner = tuple[int, int]
"""(x, y) between pixels."""

DISTANCES = 1_000_000
"""Of pairs of corners that are held at a time."""


def polygon(mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "n 2"]:
    """Corners (x, y) of a mask with at least one pixel; filled by the even-odd rule they give the mask back.

    Holes and further parts hang on the first part by bridges of no width, as formats with one outline per object need.
    Of a large image give the crop of the mask's box, and shift the corners.
    """
    first, *others = sorted(loops(mask), key=len, reverse=True)
    joined = np.array(first, np.int64)
    for other in others:
        loop = np.array(other, np.int64)
        i, j = _nearest(joined, loop)
        tour = np.concatenate([loop[j:], loop[: j + 1]])
        joined = np.concatenate([joined[: i + 1], tour, joined[i:]])
    return joined


def _nearest(a: Int64[np.ndarray, "n 2"], b: Int64[np.ndarray, "m 2"]) -> tuple[int, int]:
    """The indices of a corner of each that are closest together; the first ones of several."""
    best, at = np.inf, (0, 0)
    step = max(1, DISTANCES // len(b))
    for start in range(0, len(a), step):
        x, y = a[start : start + step].T
        far = np.abs(x[:, None] - b[:, 0]) + np.abs(y[:, None] - b[:, 1])  # [step m]
        i, j = divmod(int(far.argmin()), len(b))
        if far[i, j] < best:
            best, at = far[i, j], (start + i, j)
    return at


def loops(mask: Bool[np.ndarray, "h w"]) -> list[list[Corner]]:
    """Every boundary as the corners where it turns, inside on the right hand; pixels that touch at a corner are apart."""
    ways = _ways(mask)
    found = []
    while ways:
        start = next(iter(ways))
        here, heading, corners = start, (0, 0), []
        while True:
            heads = ways[here]
            turn = _right(heading) if _right(heading) in heads else heads[0]
            heads.remove(turn)
            if not heads:
                del ways[here]
            if turn != heading:
                corners.append(here)
            here, heading = (here[0] + turn[0], here[1] + turn[1]), turn
            if here == start and _right(heading) not in ways.get(start, ()):
                break
        found.append(_without_straight_start(corners))
    return found


def _right(heading: Corner) -> Corner:
    """A turn to the right in an image, where y grows downwards."""
    return -heading[1], heading[0]


def _ways(mask: Bool[np.ndarray, "h w"]) -> dict[Corner, list[Corner]]:
    """From every corner of the boundary, the directions in which a boundary leaves it."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    ways: dict[Corner, list[Corner]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for neighbour, (dx, dy), direction in sides:
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            ways.setdefault((x + dx, y + dy), []).append(direction)
    return ways


def _without_straight_start(corners: Sequence[Corner]) -> list[Corner]:
    """The walk may begin in the middle of an edge."""
    (ax, ay), (bx, by), (cx, cy) = corners[-1], corners[0], corners[1]
    straight = (bx - ax) * (cy - by) == (by - ay) * (cx - bx)
    return list(corners[1:] if straight else corners)
