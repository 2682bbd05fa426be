"""An offline grammar for prompts: things in places, in some number, colour and light.

A grammar is a JSON file: `places` maps a place to its phrases, the things found there and its kind of light, `colours` a
thing to its colours, `lights` a kind of light to the endings of a sentence. The mini world's comes with the package.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.prompts.rows import PromptRow
from datasetdm.prompts.wording import article, plural

MINI = Path(__file__).parent.parent / "assets" / "mini-grammar.json"

_COUNTS = ("a", "a", "a", "two", "three")
_OPENINGS = ("a photo of ", "a photo of ", "a picture of ", "")


@dataclass(frozen=True)
class Grammar:
    """Which subjects a prompt can have, where, and in which words."""

    places: Mapping[str, Mapping[str, Any]]
    colours: Mapping[str, list[str]]
    lights: Mapping[str, list[str]]

    @classmethod
    def load(cls, path: Path = MINI) -> Grammar:
        """Read a grammar file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def compose(self, count: int, seed: int = 0) -> list[str]:
        """`count` prompts that go round all places and their things; prompt `i` depends on the seed and `i` alone."""
        return [self.prompt(i, seed) for i in range(count)]

    def fingerprint(self) -> str:
        """SHA-256 of the grammar's content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """`prompt` as a row."""
        return PromptRow(prompt=self.prompt(index, seed), origin="grammar")

    def origin(self) -> dict[str, Any]:
        """The grammar by hash."""
        return {"grammar": self.fingerprint()}

    @property
    def count(self) -> None:
        """They never repeat."""

    def prompt(self, index: int, seed: int = 0) -> str:
        """Prompt number `index`, which depends on it and on the seed alone."""
        rng = np.random.default_rng((seed, index))
        turn, place_number = divmod(index, len(self.places))
        place = self.places[list(self.places)[place_number]]
        things: list[str] = np.random.default_rng((seed, place_number)).permutation(place["things"]).tolist()
        first, others = things[turn % len(things)], things[: turn % len(things)] + things[turn % len(things) + 1 :]
        phrase = self._thing(first, rng)
        if others and rng.random() < 0.35:
            link = rng.choice(["and", "next to", "in front of", "to the left of"])
            phrase += f" {link} {self._thing(str(rng.choice(others)), rng, single=True)}"
        words = (
            rng.choice(_OPENINGS) + phrase,
            rng.choice(place["phrases"]),
            rng.choice([*self.lights[place["lights"]], ""]),
        )
        return " ".join(" ".join(map(str, words)).split())

    def _thing(self, thing: str, rng: np.random.Generator, single: bool = False) -> str:
        count = "a" if single else str(rng.choice(_COUNTS))
        colour = str(rng.choice(self.colours[thing])) if thing in self.colours else ""
        noun = thing if count == "a" else plural(thing)
        lead = article(colour or noun) if count == "a" else count
        if thing == "person":
            return f"{lead} {noun}" if count != "a" or not colour else f"a person in a {colour} shirt"
        return " ".join(f"{lead} {colour} {noun}".split())
