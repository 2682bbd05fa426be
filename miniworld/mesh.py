"""Triangle meshes with per-vertex materials: units metres, x forward, y left, z up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

Triple = Sequence[float] | np.ndarray
"""Three numbers: a point, a direction or a linear RGB colour."""


def vec(*values: float) -> np.ndarray:
    """A float32 array of the given numbers: a point, a direction or a linear RGB colour."""
    return np.array(values, np.float32)


@dataclass
class Mesh:
    """Vertices with normals and material, and the triangles between them."""

    vertices: np.ndarray  # (n, 3) float32, metres
    faces: np.ndarray  # (m, 3) int32, counter-clockwise seen from outside
    normals: np.ndarray  # (n, 3) float32, unit length
    colors: np.ndarray  # (n, 3) linear RGB, 0..1
    roughness: np.ndarray  # (n,) 0 mirror .. 1 matt
    metallic: np.ndarray  # (n,) 0 dielectric .. 1 metal

    @classmethod
    def create(
        cls,
        vertices: ArrayLike,
        faces: ArrayLike,
        color: ArrayLike,
        roughness: ArrayLike = 0.6,
        metallic: ArrayLike = 0.0,
        normals: np.ndarray | None = None,
    ) -> Mesh:
        """A mesh whose material may be given once for all vertices or one by one; smooth normals by default."""
        vertices = np.asarray(vertices, np.float32)
        faces = np.asarray(faces, np.int32)
        count = len(vertices)

        def per_vertex(value: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, np.float32), shape).copy()

        return cls(
            vertices=vertices,
            faces=faces,
            normals=vertex_normals(vertices, faces) if normals is None else normals,
            colors=per_vertex(color, (count, 3)),
            roughness=per_vertex(roughness, (count,)),
            metallic=per_vertex(metallic, (count,)),
        )

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner of the bounding box, (3,) each."""
        return self.vertices.min(0), self.vertices.max(0)

    def transformed(
        self, rotation: np.ndarray | None = None, translation: Triple = (0, 0, 0), scale: float = 1.0
    ) -> Mesh:
        """A copy scaled, then rotated by a (3, 3) matrix, then moved."""
        rotation = np.eye(3, dtype=np.float32) if rotation is None else rotation.astype(np.float32)
        vertices = (self.vertices * np.float32(scale)) @ rotation.T + vec(*translation)
        return replace(
            self,
            vertices=vertices.astype(np.float32),
            normals=(self.normals @ rotation.T).astype(np.float32),
        )

    def submesh(self, keep: np.ndarray) -> Mesh:
        """The faces where `keep` (m,) is true, with the vertices that they use."""
        if keep.all():
            return self
        used, renumbered = np.unique(self.faces[keep], return_inverse=True)
        return Mesh(
            vertices=self.vertices[used],
            faces=renumbered.reshape(-1, 3).astype(np.int32),
            normals=self.normals[used],
            colors=self.colors[used],
            roughness=self.roughness[used],
            metallic=self.metallic[used],
        )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals, (n, 3) float32."""
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(second - first, third - first)
    summed = np.stack(
        [
            sum(np.bincount(faces[:, corner], face_normals[:, axis], len(vertices)) for corner in range(3))
            for axis in range(3)
        ],
        1,
    )
    return (summed / (np.linalg.norm(summed, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of several; empty ones are left out."""
    meshes = [mesh for mesh in meshes if len(mesh.vertices)]
    offsets = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    return Mesh(
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        faces=np.concatenate([mesh.faces + offsets[i] for i, mesh in enumerate(meshes)]),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
        colors=np.concatenate([mesh.colors for mesh in meshes]),
        roughness=np.concatenate([mesh.roughness for mesh in meshes]),
        metallic=np.concatenate([mesh.metallic for mesh in meshes]),
    )


def rotation_about(axis: str, angle: float) -> np.ndarray:
    """(3, 3) rotation by `angle` radians about "x", "y" or "z"."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[i, j] = -np.sin(angle)
    matrix[j, i] = np.sin(angle)
    return matrix


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Two triangles for every cell of a rows x columns grid of vertices, (2 (rows-1) (columns-1), 3)."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([corner, corner + columns, corner + 1], 1)
    upper = np.stack([corner + 1, corner + columns, corner + columns + 1], 1)
    return np.concatenate([lower, upper])


def triangle_soup_faces(count: int) -> np.ndarray:
    """Faces of `count` separate triangles whose vertices are stored one after the other, (count, 3)."""
    return np.arange(3 * count).reshape(-1, 3)
