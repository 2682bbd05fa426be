"""Bodies of smoothly blended signed distance functions, meshed by marching cubes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from skimage.measure import marching_cubes

from .mesh import Mesh, Triple, vec, vertex_normals
from .noise import value_noise

_FAR = 9.0  # the distance field's value where no primitive has been yet


@dataclass(frozen=True)
class _Primitive:
    """A shape with its bounding box (3,), blend radius in metres and material."""

    low: np.ndarray
    high: np.ndarray
    blend: float
    color: np.ndarray
    roughness: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance at points (..., 3), metres, negative inside."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Capsule(_Primitive):
    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        axis = self.end - self.start
        relative = points - self.start
        along = np.clip((relative @ axis) / (axis @ axis + 1e-9), 0, 1)
        radius = self.start_radius + (self.end_radius - self.start_radius) * along
        return np.linalg.norm(relative - along[..., None] * axis, axis=-1) - radius


@dataclass(frozen=True)
class _Ellipsoid(_Primitive):
    center: np.ndarray
    radii: np.ndarray
    rotation: np.ndarray

    def distance(self, points: np.ndarray) -> np.ndarray:
        local = (points - self.center) @ self.rotation
        scaled = np.linalg.norm(local / self.radii, axis=-1)
        gradient = np.linalg.norm(local / self.radii**2, axis=-1)
        return scaled * (scaled - 1) / (gradient + 1e-9)


@dataclass
class SmoothBody:
    """Capsules and ellipsoids that melt into one another in the order in which they are added."""

    primitives: list[_Primitive] = field(default_factory=list)

    def capsule(
        self,
        start: Triple,
        end: Triple,
        start_radius: float,
        end_radius: float,
        color: Triple,
        blend: float = 0.04,
        roughness: float = 0.85,
    ) -> Self:
        """Adds a round cone between two points (3,), all lengths in metres."""
        first, last = vec(*start), vec(*end)
        radius = max(start_radius, end_radius)
        low, high = np.minimum(first, last) - radius, np.maximum(first, last) + radius
        self.primitives.append(
            _Capsule(low, high, blend, vec(*color), roughness, first, last, start_radius, end_radius)
        )
        return self

    def ellipsoid(
        self,
        center: Triple,
        radii: Triple,
        color: Triple,
        blend: float = 0.04,
        rotation: np.ndarray | None = None,
        roughness: float = 0.85,
    ) -> Self:
        """Adds an ellipsoid with three radii in metres, turned by a (3, 3) rotation."""
        middle, reach = vec(*center), vec(*radii)
        extent = reach if rotation is None else np.full(3, reach.max(), np.float32)
        rotation = np.eye(3, dtype=np.float32) if rotation is None else rotation
        self.primitives.append(
            _Ellipsoid(middle - extent, middle + extent, blend, vec(*color), roughness, middle, reach, rotation)
        )
        return self

    def ball(
        self,
        center: Triple,
        radius: float,
        color: Triple,
        blend: float = 0.04,
        roughness: float = 0.85,
    ) -> Self:
        """Adds a ball of a radius in metres."""
        return self.ellipsoid(center, (radius,) * 3, color, blend, roughness=roughness)

    def mesh(self, resolution: int, softness: float, bump: float, bump_frequency: float) -> Mesh:
        """The body's surface.

        resolution: cells along the longest side; softness: width of colour transitions as a fraction of the
        body; bump: height of surface noise in metres, of bump_frequency cycles a metre.
        """
        low = np.min([primitive.low for primitive in self.primitives], 0)
        high = np.max([primitive.high for primitive in self.primitives], 0)
        cell = float((high - low).max()) / resolution
        low = low - 3 * cell
        field_ = self._distance_field(low, high, cell)
        vertices, faces, _, _ = marching_cubes(field_, 0.0)
        vertices = (vertices * cell + low).astype(np.float32)
        faces = faces[:, ::-1]
        noise = value_noise(vertices, bump_frequency, 3)[:, None]
        vertices += vertex_normals(vertices, faces) * (bump * (noise - 0.5)).astype(np.float32)
        color, roughness = self._materials(vertices, softness * float((high - low).max()))
        return Mesh.create(vertices, faces, color, roughness)

    def _distance_field(self, low: np.ndarray, high: np.ndarray, cell: float) -> np.ndarray:
        """The blended distance on a grid of `cell` metres, (nx, ny, nz) float32."""
        size = np.ceil((high - low) / cell).astype(int) + 4
        distances = np.full(size, _FAR, np.float32)
        axes = [low[i] + cell * np.arange(size[i], dtype=np.float32) for i in range(3)]
        for primitive in self.primitives:
            pad = primitive.blend + 2 * cell
            window = tuple(
                slice(
                    max(0, int((primitive.low[i] - pad - low[i]) / cell)),
                    int((primitive.high[i] + pad - low[i]) / cell) + 2,
                )
                for i in range(3)
            )
            points = np.stack(np.meshgrid(*[axes[i][window[i]] for i in range(3)], indexing="ij"), -1)
            new = primitive.distance(points).astype(np.float32)
            old = distances[window]
            t = np.clip(0.5 + 0.5 * (old - new) / primitive.blend, 0, 1)
            blended = old + (new - old) * t - primitive.blend * t * (1 - t)
            distances[window] = np.where(old > _FAR - 1, new, blended)
        return distances

    def _materials(self, vertices: np.ndarray, width: float) -> tuple[ArrayLike, ArrayLike]:
        """Colour (n, 3) and roughness (n,) as softmax blends of the nearest primitives' over `width` metres."""
        distances = np.stack([primitive.distance(vertices) for primitive in self.primitives])
        weights = np.exp(-(distances - distances.min(0)) / width)
        weights /= weights.sum(0)
        colors = np.stack([primitive.color for primitive in self.primitives])
        roughness = vec(*[primitive.roughness for primitive in self.primitives])
        return weights.T @ colors, weights.T @ roughness
