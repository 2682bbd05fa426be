"""Vocabularies: label names, their synonyms, and the skeletons of their objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datasetdm.records.checks import require, require_text

IGNORE = 65535
"""The id of a pixel whose label is unknown: no loss, no metric and no export counts it."""

BACKGROUND = "background"
"""The label of pixels that belong to none of a vocabulary's categories (Pascal VOC's convention)."""


@dataclass(frozen=True)
class Skeleton:
    """The named points of one kind of object, and which of them are joined: pairs of indices into `points`."""

    points: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(str(p) for p in self.points))
        object.__setattr__(self, "edges", tuple((int(a), int(b)) for a, b in self.edges))
        require_text(self.points, "Skeleton.points")
        twice = _repeated(self.points)
        require(not twice, f"points of one name: {', '.join(twice)}", "names that differ", "Skeleton.points")
        n = len(self.points)
        ok = all(0 <= a < n and 0 <= b < n for a, b in self.edges)
        require(ok, "an edge joins a point that is not there", f"indices 0..{n - 1}", "Skeleton.edges")


@dataclass(frozen=True)
class Labels:
    """A vocabulary: label `i` is called `names[i]`; `synonyms[i]` are other words for it in prompts and captions.

    Args:
        names: one per label, all different (case and outer spaces do not count).
        synonyms: one tuple per label.
        stuff: labels that are surroundings rather than countable things (panoptic formats tell them apart).
        skeletons: by label name, the points that its objects have.

    Raises:
        DataError: no label, a blank or repeated name, or an unknown name in `stuff` or `skeletons`.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    stuff: tuple[str, ...] = ()
    skeletons: Mapping[str, Skeleton] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        names = tuple(str(n) for n in self.names)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "synonyms", tuple(tuple(s) for s in self.synonyms) or ((),) * len(names))
        require(len(names) > 0, "the label set is empty", "at least one label name", "Labels.names")
        require(len(names) < IGNORE, f"{len(names)} labels", f"fewer than {IGNORE}", "Labels.names")
        require(all(n.strip() for n in names), "a label name is blank", "a word or a phrase", "Labels.names")
        twice = _repeated([n.strip().lower() for n in names])
        require(not twice, f"label names clash: {', '.join(twice)}", "names that differ", "Labels.names")
        require(
            len(self.synonyms) == len(names), "synonyms do not match names", "one tuple per name", "Labels.synonyms"
        )
        object.__setattr__(self, "stuff", tuple(self.stuff))
        object.__setattr__(self, "skeletons", dict(self.skeletons))
        strangers = sorted({*self.stuff, *self.skeletons} - set(names))
        require(not strangers, f"no such label: {', '.join(strangers)}", "names of this vocabulary", "Labels")
        require_text((*names, *(w for s in self.synonyms for w in s)), "Labels.names")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The id of every name."""
        return {n: i for i, n in enumerate(self.names)}

    @cached_property
    def by_word(self) -> Mapping[str, str]:
        """The name of the label that every name and synonym, in small letters, stands for; names go before synonyms."""
        synonyms = {w.strip().lower(): n for n, own in zip(self.names, self.synonyms, strict=True) for w in own}
        return synonyms | {n.strip().lower(): n for n in self.names}

    def skeleton_of(self, label_id: int) -> Skeleton | None:
        """The skeleton of a label's objects, if it has one."""
        return self.skeletons.get(self.names[label_id])

    def with_names(self, names: Sequence[str] | None) -> Labels:
        """These labels; or others, with what is known about those among them."""
        if names is None:
            return self
        synonyms = dict(zip(self.names, self.synonyms, strict=True))
        stuff = tuple(n for n in self.stuff if n in names)
        skeletons = {n: s for n, s in self.skeletons.items() if n in names}
        return Labels(tuple(names), tuple(synonyms.get(n, ()) for n in names), stuff, skeletons)

    def to_json(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        value: dict[str, Any] = {"names": list(self.names), "synonyms": [list(s) for s in self.synonyms]}
        if self.stuff:
            value["stuff"] = list(self.stuff)
        if self.skeletons:
            value["skeletons"] = {
                k: {"points": list(s.points), "edges": [list(e) for e in s.edges]} for k, s in self.skeletons.items()
            }
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Labels:
        """What `to_json` gave. Raises KeyError, TypeError, ValueError or DataError where it did not."""
        try:
            skeletons = {
                k: Skeleton(tuple(s["points"]), tuple(s["edges"])) for k, s in value.get("skeletons", {}).items()
            }
        except OverflowError as e:
            raise ValueError(f"an edge is no pair of whole numbers: {e}") from e
        synonyms = tuple(tuple(s) for s in value["synonyms"])
        return cls(tuple(value["names"]), synonyms, tuple(value.get("stuff", ())), skeletons)

    @cached_property
    def _patterns(self) -> dict[int, re.Pattern[str]]:
        return {}

    def _pattern(self, label_id: int) -> re.Pattern[str]:
        """A label's name and synonyms as whole words, compiled when a text first asks for it."""
        if label_id not in self._patterns:
            words = (self.names[label_id], *self.synonyms[label_id])
            pattern = r"\b(?:" + "|".join(map(_plural, words)) + r")\b"
            self._patterns[label_id] = re.compile(pattern, re.IGNORECASE)
        return self._patterns[label_id]

    @cached_property
    def _by_first_word(self) -> Mapping[str, list[int]]:
        """For the first word of every name and synonym, singular and plural, the labels that may begin with it."""
        found: dict[str, list[int]] = {}
        for i, (name, synonyms) in enumerate(zip(self.names, self.synonyms, strict=True)):
            for first in {f for w in (name, *synonyms) for f in _first_words(w)}:
                found.setdefault(first, []).append(i)
        return found

    def named_in(self, text: str) -> tuple[str, ...]:
        """The labels that `text` mentions (by name or synonym, singular or plural), in the vocabulary's order.

        Only labels whose first word occurs are tried, so the time does not grow with the vocabulary.
        """
        first = {"", *re.findall(r"\w+", text.lower())}
        candidates = sorted({i for word in first for i in self._by_first_word.get(word, ())})
        return tuple(self.names[i] for i in candidates if self._pattern(i).search(text))


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(n for n, count in Counter(names).items() if count > 1)


def _plural(word: str) -> str:
    """A pattern for a word and its regular English plural."""
    stem = re.escape(word)
    return f"{stem[:-1]}(?:y|ys|ies)" if word.lower().endswith("y") else f"{stem}(?:s|es)?"


def _first_words(phrase: str) -> set[str]:
    """The words with which a phrase may begin in a text; an empty one where it begins with none."""
    lower = phrase.lower()
    match = re.match(r"\w+", lower)
    if match is None:
        return {""}
    word = match[0]
    if word != lower:
        return {word}
    return {word[:-1] + end for end in ("y", "ys", "ies")} if word.endswith("y") else {word, word + "s", word + "es"}
