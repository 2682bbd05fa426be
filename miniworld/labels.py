"""Ground truth by ray casting: classes, instances, depth and keypoints, exact for a pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .classes import STUFF
from .renderer import trace
from .scene import Scene
from .stage import SceneObject

OUTSIDE, HIDDEN, SEEN = 0, 1, 2
"""A keypoint's visibility."""


@dataclass
class Labels:
    """What is where in an image."""

    classes: np.ndarray  # (h, w) uint8: 1..20 things, 21..32 surroundings
    instances: np.ndarray  # (h, w) uint8, 0 none
    depth: np.ndarray  # (h, w) float32, z-depth in metres, 0 none
    keypoints: dict[str, dict[str, list]]
    """{object id: {name: [u, v, visibility]}}, pixels."""
    areas: list[float]
    """Each object's share of the image."""


def make_labels(scene: Scene, mitsuba_scene: Any) -> Labels:
    """Casts one ray through every pixel's middle and one to every keypoint."""
    camera, size = scene.camera, scene.camera.resolution
    v, u = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    points = [
        (owner, name, point) for owner, thing in enumerate(scene.objects) for name, point in thing.keypoints.items()
    ]
    positions = np.array([point for _, _, point in points])
    projected = camera.project(positions)
    to_points = (positions - camera.eye) / np.maximum(projected[:, 2:], 1e-3)
    rays = np.concatenate([camera.rays(u.ravel(), v.ravel()), to_points])
    depths, faces = trace(mitsuba_scene, camera.eye, rays)

    pixels = size * size
    hit = (faces[:pixels] >= 0).reshape(size, size)
    face_classes = scene.face_classes[np.maximum(faces, 0)]
    face_instances = scene.face_instances[np.maximum(faces, 0)]
    instances = np.where(hit, face_instances[:pixels].reshape(size, size), 0)
    keypoints: dict[str, dict[str, list]] = {}
    for i, (owner, name, _) in enumerate(points, start=0):
        ray = pixels + i
        own = faces[ray] >= 0 and face_instances[ray] == owner + 1
        labelled = _keypoint(projected[i], depths[ray], own, scene.objects[owner], size)
        keypoints.setdefault(str(owner + 1), {})[name] = labelled
    return Labels(
        classes=np.where(hit, face_classes[:pixels].reshape(size, size), STUFF["sky"]).astype(np.uint8),
        instances=instances.astype(np.uint8),
        depth=np.where(hit, depths[:pixels].reshape(size, size), 0).astype(np.float32),
        keypoints=keypoints,
        areas=[(instances == i + 1).mean() for i in range(len(scene.objects))],
    )


def _keypoint(projected: np.ndarray, hit_depth: float, own: bool, thing: SceneObject, size: int) -> list:
    """[u, v, visibility]; hit_depth: where the ray to the point ends, metres; own: whether on the thing itself."""
    u, v, z = projected
    visibility = OUTSIDE
    if z > 0 and 0 <= u < size and 0 <= v < size:
        # Keypoints lie inside the body: the skin before one may be as much as this nearer.
        thickness = 0.16 * max(thing.height, 0.5 * thing.radius)
        is_seen = (own and z - hit_depth < thickness) or hit_depth >= z
        visibility = SEEN if is_seen else HIDDEN
    return [round(float(u), 2), round(float(v), 2), visibility]
