"""Solid shapes: lofts, rounded boxes, surfaces of revolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .mesh import Mesh, Triple, grid_faces, vec


def loft(
    path: ArrayLike,
    radii: ArrayLike,
    color: ArrayLike,
    segments: int = 14,
    roughness: ArrayLike = 0.5,
    metallic: float = 0.0,
    up: Triple = (0, 0, 1),
    exponent: float = 2.0,
    capped: bool = True,
) -> Mesh:
    """A tube along `path` (n, 3); radii (n,) round or (n, 2) sideways and along `up`, metres.

    `exponent` is the cross-section's superellipse exponent: 2 an ellipse, more is squarer.
    """
    path = np.asarray(path, np.float32)
    radii = np.asarray(radii, np.float32)
    if radii.ndim == 1:
        radii = np.stack([radii, radii], 1)
    count = len(path)
    side, upward = _path_frame(path, up)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    cosine, sine = (np.sign(z) * abs(z) ** (2 / exponent) for z in (np.cos(angle), np.sin(angle)))
    rings = (
        path[:, None]
        + side[:, None] * (radii[:, :1] * cosine)[..., None]
        + upward[:, None] * (radii[:, 1:] * sine)[..., None]
    )
    vertices = rings.reshape(-1, 3)
    faces = [grid_faces(count, segments + 1)]
    if capped:
        step = np.arange(segments)
        for end, start in ((0, 0), (count - 1, (count - 1) * (segments + 1))):
            vertices = np.concatenate([vertices, path[end : end + 1]])
            center = np.full(segments, len(vertices) - 1)
            faces.append(np.stack([start + step, start + step + 1, center], 1))
    return Mesh.create(vertices, np.concatenate(faces), color, roughness, metallic)


def _path_frame(path: np.ndarray, up: Triple) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors across a path, sideways and upwards, (n, 3) each."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    if abs(tangent @ vec(*up)).max() > 0.98 * np.linalg.norm(up):
        up = (1, 0, 0)
    side = np.cross(np.broadcast_to(vec(*up), tangent.shape), tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    return side, np.cross(tangent, side)


def rounded_box(
    center: Triple,
    half_size: Triple,
    radius: float,
    color: ArrayLike,
    roughness: ArrayLike = 0.5,
    metallic: float = 0.0,
    subdivisions: int = 12,
    rotation: np.ndarray | None = None,
) -> Mesh:
    """A box with rounded edges; half_size (3,) and radius in metres, each side subdivisions x subdivisions vertices."""
    half = vec(*half_size)
    radius = min(radius, float(half.min()) * 0.98)
    steps = np.linspace(-1, 1, subdivisions)
    across, along = np.meshgrid(steps, steps, indexing="ij")
    vertices, normals, faces = [], [], []
    for axis in range(3):
        for sign in (-1, 1):
            side = np.empty((subdivisions, subdivisions, 3), np.float32)
            side[..., axis] = sign
            side[..., (axis + 1) % 3] = across
            side[..., (axis + 2) % 3] = along
            points = side.reshape(-1, 3) * half
            inner = np.clip(points, -(half - radius), half - radius)
            outward = points - inner
            outward /= np.linalg.norm(outward, axis=1, keepdims=True) + 1e-9
            faces.append(grid_faces(subdivisions, subdivisions) + subdivisions**2 * len(vertices))
            vertices.append(inner + outward * radius)
            normals.append(outward)
    mesh = Mesh.create(
        np.concatenate(vertices),
        np.concatenate(faces),
        color,
        roughness,
        metallic,
        np.concatenate(normals).astype(np.float32),
    )
    return mesh.transformed(rotation, center)


def revolve(
    profile: ArrayLike,
    color: ArrayLike,
    segments: int = 28,
    roughness: ArrayLike = 0.3,
    metallic: float = 0.0,
) -> Mesh:
    """The profile, (radius, height) pairs in metres (n, 2), turned about the z axis."""
    profile = np.asarray(profile, np.float32)
    if len(profile) < 12:
        profile = np.repeat(profile, 2, 0)[:-1]
    rows = 70
    at, knots = np.linspace(0, 1, rows), np.linspace(0, 1, len(profile))
    radius, height = (np.interp(at, knots, profile[:, column]) for column in (0, 1))
    # A slight lean keeps the path's tangent defined where the height stands still.
    path = np.stack([0 * radius, 0 * radius + radius * 1e-5, height + np.arange(rows) * 1e-5], 1)
    return loft(path, np.maximum(radius, 1e-3), color, segments, roughness, metallic, up=(1, 0, 0))
