"""Words in the names of points: what they mean, and which point is the mirror image of which."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHORT = {
    "l": "left", "r": "right", "f": "front", "b": "back", "h": "hind", "lf": "left front", "rf": "right front",
    "lh": "left hind", "rh": "right hind", "tl": "top left", "tr": "top right", "bl": "bottom left", "br": "bottom right",
}  # fmt: skip
_OTHER_SIDE = {"left": "right", "right": "left"}


def name_words(name: str) -> tuple[str, ...]:
    """The words of a point's name, usual short forms written out: `lf_paw` is left front paw."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return tuple(w for piece in re.findall(r"[^\W\d_]+|\d+", apart) for w in _SHORT.get(piece, piece).split())


def mirror(names: Sequence[str]) -> list[int]:
    """Which point each becomes in a mirrored picture, by the words left and right in the names."""
    place = {name_words(n): i for i, n in enumerate(names)}
    swapped = (tuple(_OTHER_SIDE.get(w, w) for w in name_words(n)) for n in names)
    return [place.get(words, i) for i, words in enumerate(swapped)]
