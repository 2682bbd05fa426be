"""Prompts for any labels without a language model: scenes put into words by templates, or single class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datasetdm.prompts.rows import PromptRow
from datasetdm.prompts.scenes import MOST_COUNTED, Scene, SceneSampler
from datasetdm.prompts.wording import counted, enumerated

OPENINGS = ("a photo of ", "a wide photo of ", "a close photo of ", "a detailed photo of ", "")
ADJECTIVES = ("", "", "", "small", "large", "old", "new")
LINKS = ("next to", "in front of", "behind", "near", "beside")
SIDES = ("on the left", "on the right", "in front", "far away")
LIGHTS = ("", "", "in soft light", "in bright light", "in shade", "seen from above", "seen from the side")

PLACED = 0.3
"""Fraction of scenes of two labels or more whose prompt says on which side each of the first two is."""
LINKED = 0.4
"""Fraction whose prompt says how the first stands to the others."""

DOMAINS = {
    "night": "at night", "day": "in daylight", "dawn": "at dawn", "dusk": "at dusk", "fog": "in thick fog",
    "rain": "in heavy rain", "snow": "in falling snow", "storm": "in a storm", "sun": "in bright sun",
    "clouds": "under a cloudy sky", "winter": "in winter", "summer": "in summer", "autumn": "in autumn",
}  # fmt: skip
"""Words for conditions -> what a prompt says; other words are said as they are."""


class SceneGrammar:
    """Prompts by number, without end, of the scenes of a sampler. Satisfies `PromptSource`."""

    count = None

    def __init__(self, scenes: SceneSampler, style: str = ""):
        self.scenes, self.style = scenes, style

    def origin(self) -> dict[str, Any]:
        """The scenes' settings and the style."""
        return {"scenes": self.scenes.origin(), "style": self.style}

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """Prompt `index` with the labels, counts and place of its scene."""
        scene = self.scenes.scene(index, seed)
        return scene_row(self._text(scene, np.random.default_rng((seed, index, 1))), scene, scene.labels, "grammar")

    def _text(self, scene: Scene, rng: np.random.Generator) -> str:
        def one(options: tuple[str, ...]) -> str:
            return str(rng.choice(options))

        things = [
            counted(f"{scene.words[n]} {n}" if n in scene.words else n, c, one(ADJECTIVES))
            for n, c in scene.counts.items()
        ]
        chance = rng.random()
        if len(things) > 1 and chance < PLACED:
            first, second = rng.choice(SIDES, 2, replace=False).tolist()
            things[:2] = [f"{things[0]} {first}", f"{things[1]} {second}"]
            words = enumerated(things)
        elif len(things) > 1 and chance < PLACED + LINKED:
            words = f"{things[0]} {one(LINKS)} {enumerated(things[1:])}"
        else:
            words = enumerated(things)
        around = f"with {enumerated(scene.stuff)} around" if scene.stuff else ""
        parts = (one(OPENINGS) + words, around, one(LIGHTS), domain_words(scene.domain))
        return ", ".join([" ".join(filter(None, parts)), *([self.style] if self.style else [])])


class ClassNames:
    """`a photo of a dog` for every label in turn: what other prompts are compared with. Satisfies `PromptSource`."""

    count = None

    def __init__(self, scenes: SceneSampler):
        self.scenes, self.names = scenes, (*scenes.things, *scenes.stuff)

    def origin(self) -> dict[str, Any]:
        """The labels."""
        return {"names": list(self.names)}

    def row(self, index: int, seed: int = 0) -> PromptRow:
        """The prompt of label `index`, counted on from the first one after the last."""
        name = self.names[index % len(self.names)]
        text = name if name in self.scenes.stuff else counted(name, 1)
        return PromptRow(prompt=f"a photo of {text}", labels=(name,), origin="grammar")


def domain_words(domain: str) -> str:
    """What a prompt says of conditions."""
    return DOMAINS.get(domain.lower(), domain)


def scene_row(text: str, scene: Scene, shown: Sequence[str], origin: str) -> PromptRow:
    """A prompt with what it is meant to show: labels, and of those the scene's counts (`several` is none), and conditions."""
    counts = {n: c for n, c in scene.counts.items() if n in shown and c < MOST_COUNTED}
    place = domain_words(scene.domain) or None
    return PromptRow.model_validate(
        {"prompt": text, "labels": list(shown), "origin": origin, "counts": counts or None, "place": place}
    )
