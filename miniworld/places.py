"""Where a scene may be, and what lives there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .categories import CATEGORIES


@dataclass(frozen=True)
class Place:
    """A kind of surroundings; `surroundings/` builds it."""

    name: str
    weight: float
    """How often, among the places where the main object belongs."""
    listed: tuple[str, ...]
    """Categories, once for each share; their order is part of the world's version."""
    phrases: tuple[str, ...]
    """What captions call it."""
    ground: str = ""
    """Class of the ground, outdoors."""
    indoor: bool = False
    max_eye_height: float = 3.2
    """Metres."""
    hills: float = 0.0
    """Probability."""
    buildings: float = 0.0
    """Probability."""
    max_trees: int = 0

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The listed categories and those that name this place in their own file."""
        added = sorted(category.name for category in CATEGORIES.values() if self.name in category.places)
        return (*self.listed, *added)


_PLACES = (
    Place(
        name="grass",
        weight=5,
        listed=(
            *("dog", "cat", "horse", "cow", "sheep", "bird"),
            *("person", "bicycle", "chair", "car", "plant", "table"),
        ),
        phrases=("on a grass field", "in a meadow", "on the grass", "in a park"),
        ground="grass",
        hills=0.85,
        max_trees=14,
    ),
    Place(
        name="beach",
        weight=3,
        listed=("dog", "bird", "person", "chair", "bicycle", "horse"),
        phrases=("on a beach", "on the sand by the sea"),
        ground="sand",
        hills=0.4,
    ),
    Place(
        name="street",
        weight=5,
        listed=("car", "bus", "bicycle", "person", "dog", "cat", "car", "bus"),
        phrases=("on a city street", "on a road"),
        ground="road",
        hills=0.85,
        buildings=1,
        max_trees=5,
    ),
    Place(
        name="snow",
        weight=2,
        listed=("dog", "horse", "person", "car", "bird", "cow", "bus"),
        phrases=("in the snow", "on a snowy field"),
        ground="snow",
        hills=0.85,
        max_trees=14,
    ),
    Place(
        name="desert",
        weight=2,
        listed=("horse", "person", "car", "bus", "dog", "bird"),
        phrases=("in the desert", "on dry ground"),
        ground="sand",
        hills=0.85,
    ),
    Place(
        name="sea",
        weight=2.5,
        listed=("boat",),
        phrases=("on the sea", "on the water", "on a lake"),
        ground="water",
        max_eye_height=9,
        hills=0.4,
    ),
    Place(
        name="airport",
        weight=2.5,
        listed=("airplane",),
        phrases=("on a runway", "at an airport"),
        ground="road",
        max_eye_height=9,
        hills=0.85,
        buildings=0.5,
        max_trees=14,
    ),
    Place(
        name="sky",
        weight=2,
        listed=("airplane", "bird"),
        phrases=("in the sky", "against the sky"),
    ),
    Place(
        name="room",
        weight=6,
        listed=("cat", "dog", "person", "chair", "table", "sofa", "tv", "plant", "sofa", "chair"),
        phrases=("in a living room", "in a room", "indoors"),
        indoor=True,
    ),
    Place(
        name="tabletop",
        weight=2.5,
        listed=("bottle", "bottle", "bottle", "plant"),
        phrases=("on a wooden table", "on a table"),
        indoor=True,
        max_eye_height=9,
    ),
    Place(
        name="studio",
        weight=2,
        listed=(
            *("bicycle", "bird", "bottle", "car", "cat", "chair", "cow", "table"),
            *("dog", "horse", "person", "plant", "sheep", "sofa", "tv"),
        ),
        phrases=("in a studio", "on a plain background"),
        indoor=True,
        max_eye_height=9,
    ),
)
PLACES: dict[str, Place] = {place.name: place for place in _PLACES}
