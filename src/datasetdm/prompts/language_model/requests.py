"""What a language model is asked: numbered items in, one text for each out, in one form for every kind of task."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasetdm.prompts.scene_grammar import domain_words
from datasetdm.prompts.scenes import MOST_COUNTED, Scene

FORM = 'Answer with JSON only: {"items": [{"number": 1, "text": "..."}, ...]}, one text for every number.'

SCENES = (
    "You write prompts for a text-to-image model that makes training images for computer vision. For every numbered scene "
    "write one prompt: one English sentence of at most 40 words that says what a photo shows. Name every listed thing by "
    "exactly the given word, in the given number. Choose a believable place, and vary places, light, colours, viewpoints "
    "and sentences from prompt to prompt. Do not add people, animals or things of the list that a scene does not have."
)
PARAPHRASES = (
    "You reword captions of photos. For every numbered caption write one new sentence of at most 40 words that shows the same "
    "things in another way: other words, another place, light or viewpoint. Keep the words in brackets as they are."
)
CAPTION = (
    "You describe photos for a text-to-image model. Write one English sentence of at most 40 words that says what the photo "
    "shows, where, and in what light. Use the words in brackets for what they name."
)
SUBCLASSES = (
    "For every numbered word list different kinds of it that look different in photos, as breeds of a dog or models of a car: "
    "short names separated by commas, without explanations."
)


@dataclass(frozen=True)
class Request:
    """One question to the model.

    Args:
        key: which one it is, among all of a command.
        instruction: what is to be done with the items.
        items: texts that are numbered from 1 on.
        example: an item and its text, which shows the form also to models that follow no instructions.
        seed: of the model's sampling, where the server heeds it.
        image: a JPEG file to look at.
    """

    key: str
    instruction: str
    items: tuple[str, ...]
    example: tuple[str, str]
    seed: int = 0
    image: bytes | None = None

    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, as the interface has it."""
        item, text = self.example
        asked: Any = _numbered(self.items)
        if self.image is not None:
            url = "data:image/jpeg;base64," + base64.b64encode(self.image).decode()
            asked = [{"type": "text", "text": asked}, {"type": "image_url", "image_url": {"url": url}}]
        return [
            {"role": "system", "content": f"{self.instruction} {FORM}"},
            {"role": "user", "content": _numbered([item])},
            {"role": "assistant", "content": f'{{"items": [{{"number": 1, "text": "{text}"}}]}}'},
            {"role": "user", "content": asked},
        ]


def _numbered(items: Sequence[str]) -> str:
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))


def scenes_request(key: str, scenes: Sequence[Scene], style: str, seed: int) -> Request:
    """Prompts for scenes, in a style."""
    instruction = f"{SCENES} All photos are of this kind: {style}." if style else SCENES
    example = (
        "2 penguin, 1 lighthouse | at dusk",
        "Two penguins waddle over wet rocks below an old lighthouse at dusk, a wide shot with warm light",
    )
    return Request(key, instruction, tuple(map(_scene_line, scenes)), example, seed)


def _scene_line(scene: Scene) -> str:
    counts = [
        f"{'several' if c >= MOST_COUNTED else c} {n}" + (f" (a {scene.words[n]})" if n in scene.words else "")
        for n, c in scene.counts.items()
    ]
    things = ", ".join([*counts, *scene.stuff])
    return f"{things} | {domain_words(scene.domain)}" if scene.domain else things


def paraphrases_request(key: str, captions: Sequence[tuple[str, Sequence[str]]], style: str, seed: int) -> Request:
    """Other words for captions, each with the labels that must stay."""
    instruction = f"{PARAPHRASES} All photos are of this kind: {style}." if style else PARAPHRASES
    example = ("a penguin on a rock (penguin)", "On a wet rock by the sea stands a lone penguin, seen from above")
    return Request(key, instruction, tuple(f"{c} ({', '.join(names)})" for c, names in captions), example, seed)


def caption_request(key: str, labels: Sequence[str], image: bytes, seed: int) -> Request:
    """A caption for an image with these labels."""
    example = ("this photo (penguin)", "A penguin stands on a wet rock by the sea in the evening light")
    return Request(key, CAPTION, (f"this photo ({', '.join(labels)})",), example, seed, image)


def subclasses_request(key: str, labels: Sequence[str], count: int, seed: int) -> Request:
    """Names of kinds of labels."""
    example = ("penguin", "emperor penguin, king penguin, gentoo penguin, little penguin")
    return Request(key, f"{SUBCLASSES} Give {count} names for each.", tuple(labels), example, seed)
