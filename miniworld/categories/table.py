"""Wooden tables: rectangular on four legs, or round on one."""

from __future__ import annotations

import numpy as np

from ..mesh import Mesh, merge, vec
from ..shapes import loft, rounded_box
from ..textures import WOOD_NAMES, WOODS, wooden
from .base import Category, Thing

KEYPOINTS = ("top",)
COLORS = tuple(dict.fromkeys(WOOD_NAMES))


def make(rng: np.random.Generator) -> Thing:
    """A table."""
    uniform = rng.uniform
    kind = rng.integers(5)
    wood = vec(*WOODS[kind])
    height = uniform(0.4, 0.78)
    is_round = uniform(0, 1) < 0.35
    half_width, half_depth = uniform(0.35, 0.55), uniform(0.5, 0.95)
    if is_round:
        meshes = _round_table(wood, height, half_width)
    else:
        meshes = _rectangular_table(wood, height, half_width, half_depth, rng)
    return Thing(merge(meshes), {"top": vec(0, 0, height)}, WOOD_NAMES[kind], "table")


def _round_table(wood: np.ndarray, height: float, radius: float) -> list[Mesh]:
    edge = [(0, 0, height - 0.03), (0, 0, height - 0.025), (0, 0, height - 0.005), (0, 0, height)]
    edge_radii = [radius * 0.97, radius, radius, radius * 0.97]
    foot = [(0, 0, 0), (0, 0, 0.03), (0, 0, 0.05), (0, 0, height * 0.5), (0, 0, height - 0.03)]
    foot_radii = [radius * 0.5, radius * 0.45, 0.05, 0.035, 0.07]
    return [
        wooden(loft(edge, edge_radii, wood, 40, 0.3, up=(1, 0, 0)), wood),
        wooden(loft(foot, foot_radii, wood, 16, up=(1, 0, 0)), wood),
    ]


def _rectangular_table(
    wood: np.ndarray, height: float, half_width: float, half_depth: float, rng: np.random.Generator
) -> list[Mesh]:
    top_size = (half_depth, half_width, 0.022)
    apron_size = (half_depth * 0.9, half_width * 0.88, 0.035)
    meshes = [
        wooden(rounded_box((0, 0, height - 0.02), top_size, 0.012, wood, 0.35, subdivisions=30), wood),
        wooden(rounded_box((0, 0, height - 0.08), apron_size, 0.005, wood, 0.5, subdivisions=8), wood),
    ]
    for sign_x in (-1, 1):
        for sign_y in (-1, 1):
            x, y = sign_x * half_depth * 0.88, sign_y * half_width * 0.85
            path = [(x, y, q * height) for q in np.linspace(0, 0.98, 6)]
            exponent = rng.choice([2, 6])  # round or square, leg by leg
            leg = loft(path, np.linspace(0.025, 0.038, 6), wood, 8, 0.5, exponent=exponent)
            meshes.append(wooden(leg, wood, axis=2))
    return meshes


CATEGORY = Category("table", 11, COLORS, KEYPOINTS, make)
