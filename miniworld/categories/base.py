"""What a category is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..mesh import Mesh

Keypoints = dict[str, np.ndarray]
"""Named points (3,), metres."""

SIDES = ((1, "l"), (-1, "r"))
"""The sign of y and the letter of the left and of the right side, as seen by the thing itself."""


@dataclass
class Thing:
    """One made thing, standing on z = 0 at the origin, looking along +x."""

    mesh: Mesh
    keypoints: Keypoints
    color: str
    pose: str
    """Pose of an animal or a person; make of a vehicle."""
    seat_height: float | None = None
    """Metres; set when it sits and needs a chair under it."""


class Captioned(Protocol):
    """What captions say of a thing, wherever it stands."""

    color: str
    pose: str


@dataclass(frozen=True)
class Category:
    """All that the rest of the package knows about a category; its file builds one."""

    name: str
    class_id: int
    """Value in the class map, Pascal VOC's."""
    colors: tuple[str, ...]
    """Colour names that captions may use."""
    keypoints: tuple[str, ...]
    """Names, in the order in which the labels list them."""
    make: Callable[[np.random.Generator], Thing]

    places: tuple[str, ...] = ()
    """Places to live in besides those that list the category in `places.py`."""

    # How it is laid out.
    only_first: bool = False
    """Large: only as a scene's main object."""
    faces_camera: bool = False
    follows_road: bool = False
    floats: bool = False
    """Keeps its own waterline instead of standing on its lowest point, and rolls a little."""
    sky_pose: str | None = None
    """The only pose that belongs in the sky, where one does."""

    # How captions speak of it.
    noun: str = ""
    plural: str = ""
    color_in_caption: bool = True
    pose_as_noun: bool = False
    """Sometimes called by its pose: a sedan, a sailboat."""
    phrase: Callable[[Captioned, np.random.Generator], str] | None = None
    """Its own wording for a single one, article included; the default is "a COLOR NOUN POSE"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noun", self.noun or self.name)
        object.__setattr__(self, "plural", self.plural or self.noun + "s")
