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
    """The words of a point's name, usual short forms written out: `lf_paw` is left front paw, `leftear` left ear."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
    pieces = re.findall(r"[^\W\d_]+|\d+", apart)
    return tuple(w for piece in pieces for word in _SHORT.get(piece, piece).split() for w in _split_side(word))


def _split_side(word: str) -> list[str]:
    """A side at the beginning or the end of a word: `leftear`, `earleft`."""
    for side in _OTHER_SIDE:
        rest = word.removeprefix(side) if word.startswith(side) else word.removesuffix(side)
        if rest != word and len(rest) > 2:
            return [side, rest] if word.startswith(side) else [rest, side]
    return [word]


def mirror(names: Sequence[str]) -> list[int]:
    """Which point each becomes in a mirrored image, by the words left and right in the names."""
    place = {name_words(n): i for i, n in enumerate(names)}
    swapped = (tuple(_OTHER_SIDE.get(w, w) for w in name_words(n)) for n in names)
    return [place.get(words, i) for i, words in enumerate(swapped)]


def mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of names that a mirrored image exchanges."""
    return [(names[i], names[j]) for i, j in enumerate(mirror(names)) if i < j]
