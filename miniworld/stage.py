"""A scene while it is being built."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .camera import Camera
from .categories import Category, Keypoints
from .classes import STUFF
from .lights import Light
from .mesh import Mesh, Triple, merge, vec
from .places import Place


@dataclass
class SceneObject:
    """A thing where it stands in the scene; metres."""

    category: Category
    color: str
    pose: str
    keypoints: Keypoints
    position: np.ndarray  # (3,) of its origin
    radius: float  # of a circle around it on the ground
    height: float
    center: np.ndarray  # (3,) of its bounding box


@dataclass
class Part:
    """A mesh whose faces all have the same labels."""

    mesh: Mesh
    class_id: int
    instance_id: int


@dataclass
class Stage:
    """The things so far and all that the builders of the surroundings need to know.

    The scene is built around its main object at the origin and seen along `heading`.
    """

    rng: np.random.Generator
    place: Place
    light: Light
    resolution: int
    heading: float
    """Azimuth of the view, radians."""
    road_azimuth: float = 0.0
    objects: list[SceneObject] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    size: float = 0.0
    """What the image should hold, metres."""
    distance: float = 0.0
    """From the camera to the main object, metres."""
    camera: Camera = field(init=False)
    """Set by `aim_camera`, before the surroundings are built."""

    def __post_init__(self) -> None:
        self.forward = vec(np.cos(self.heading), np.sin(self.heading))  # (2,) on the ground
        self.left = vec(-np.sin(self.heading), np.cos(self.heading))

    @property
    def main(self) -> SceneObject:
        """The object that the scene is about."""
        return self.objects[0]

    def add(self, mesh: Mesh, class_id: int, instance_id: int = 0) -> None:
        """Adds a mesh under a class id and, for things, an instance id."""
        self.parts.append(Part(mesh, class_id, instance_id))

    def add_stuff(self, mesh: Mesh, name: str) -> None:
        """Adds a mesh of the surroundings by the name of its class."""
        self.add(mesh, STUFF[name])

    def add_backing(self, z: float, color: Triple, name: str) -> None:
        """Adds a plane of four kilometres under the ground, which fills what the ground leaves open."""
        corners = [(-2e3, -2e3, z), (2e3, -2e3, z), (2e3, 2e3, z), (-2e3, 2e3, z)]
        self.add_stuff(Mesh.create(corners, [(0, 1, 2), (0, 2, 3)], color, 0.9), name)

    def merged(self) -> tuple[Mesh, np.ndarray, np.ndarray]:
        """All parts as one mesh, and the class and instance id of each of its faces, (m,) uint8 each."""
        counts = [len(part.mesh.faces) for part in self.parts]
        classes = np.repeat(np.array([part.class_id for part in self.parts], np.uint8), counts)
        instances = np.repeat(np.array([part.instance_id for part in self.parts], np.uint8), counts)
        return merge([part.mesh for part in self.parts]), classes, instances
