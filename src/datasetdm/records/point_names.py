"""Words in the names of points: what they mean, and which point is the mirror image of which."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHORT = {
    "l": "left", "r": "right", "f": "front", "b": "back", "h": "hind", "lf": "left front", "rf": "right front",
    "lh": "left hind", "rh": "right hind", "fl": "left front", "fr": "right front", "hl": "left hind", "hr": "right hind",
    "tl": "top left", "tr": "top right", "bl": "bottom left", "br": "bottom right",
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
    found = [place.get(words, i) for i, words in enumerate(swapped)]
    alone = [i for i, j in enumerate(found) if i == j]
    pairs = [(i, j) for i in alone for j in alone if i < j and _one_letter_apart(names[i].lower(), names[j].lower())]
    if len(pairs) > 1 and len({i for pair in pairs for i in pair}) == 2 * len(pairs):
        for i, j in pairs:
            found[i], found[j] = j, i
    return found


def _one_letter_apart(a: str, b: str) -> bool:
    """Whether names differ in the l or r with which they begin or end, as `lhip` and `rhip`. Where only two names do, it may be
    by chance (`lear`, `rear`)."""
    sides = {a[:1], b[:1]} if a[1:] == b[1:] else {a[-1:], b[-1:]} if a[:-1] == b[:-1] else set()
    return sides == {"l", "r"} and len(a) > 3


def mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of names that a mirrored image exchanges."""
    return [(names[i], names[j]) for i, j in enumerate(mirror(names)) if i < j]
