"""Fur and feathers: thin triangles on a surface."""

from __future__ import annotations

import numpy as np

from .mesh import Mesh, triangle_soup_faces, vec

_FLOW = (-0.7, 0, -0.5)  # hair lies backwards and down


def fur(skin: Mesh, count: int, length: float, rng: np.random.Generator, width: float, jitter: float) -> Mesh:
    """`count` hairs of about `length` metres, shaded with the skin's normal: soft silhouettes and hair texture.

    width: half a hair's width as a fraction of its length; jitter: spread of the hairs' directions.
    """
    corners = skin.faces[rng.integers(0, len(skin.faces), count)]
    barycentric = rng.dirichlet((1, 1, 1), count).astype(np.float32)

    def at_roots(values: np.ndarray) -> np.ndarray:
        return (values[corners] * barycentric[..., None]).sum(1)

    roots, normals, colors = at_roots(skin.vertices), at_roots(skin.normals), at_roots(skin.colors)
    directions = normals * 0.55 + vec(*_FLOW) * (0.5 + rng.random((count, 1))) + rng.normal(0, jitter, (count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sideways = np.cross(directions, normals)
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True) + 1e-6
    lengths = length * (0.5 + rng.random((count, 1)))
    vertices = np.stack(
        [roots - sideways * lengths * width, roots + sideways * lengths * width, roots + directions * lengths], 1
    )
    colors = colors * (0.65 + 0.7 * rng.random((count, 1)))
    return Mesh.create(
        vertices.reshape(-1, 3),
        triangle_soup_faces(count),
        np.repeat(colors, 3, 0),
        0.8,
        normals=np.repeat(normals, 3, 0).astype(np.float32),
    )
