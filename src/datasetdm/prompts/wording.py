"""English that prompts are composed of: numbers, articles, plurals, lists."""

from __future__ import annotations

from collections.abc import Sequence

PLURALS = {"sheep": "sheep", "person": "people", "bus": "buses"}
"""Plurals that do not follow the rule."""

NUMBERS = {1: "a", 2: "two", 3: "three", 4: "four"}
"""How a count is said; larger ones are `several`."""


def article(word: str) -> str:
    """`a` or `an`, by the word's first letter."""
    return "an" if word[:1].lower() in set("aeiou") else "a"


def plural(noun: str) -> str:
    """The plural of a noun."""
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith("y") and noun[-2:-1] not in set("aeiou"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def counted(noun: str, count: int, adjective: str = "") -> str:
    """So many of them: `a small dog`, `two dogs`, `several dogs`."""
    words = f"{adjective} {noun if count == 1 else plural(noun)}".strip()
    return f"{article(words) if count == 1 else NUMBERS.get(count, 'several')} {words}"


def enumerated(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
