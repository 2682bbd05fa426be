"""What cars and buses share: a shell cut from three outlines, painted by position, on four wheels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..colors import rgb
from ..mesh import Mesh, merge, rotation_about, vec, vertex_normals
from ..noise import smoothstep, value_noise
from ..outline import Outline, solid_from_outlines
from ..shapes import loft, rounded_box
from .base import SIDES, Keypoints

KEYPOINTS = ("l_wheel_f", "l_wheel_b", "r_wheel_f", "r_wheel_b")
TIRE = (0.012, 0.012, 0.013)


@dataclass
class Body:
    """Measures of a vehicle, metres; x = 0 is its middle."""

    length: float
    width: float
    height: float
    wheel_radius: float
    clearance: float
    beltline: float
    """Height of the windows' lower edge."""
    cabin: list[float]
    """x of the windscreen's foot and head and of the rear window's head and foot."""
    axles: list[float]
    """x of the front and of the rear axle."""
    side: Outline
    top: Outline
    roof_taper: float
    """Width at the roof as a fraction of the width."""
    resolution: int

    @property
    def front_x(self) -> float:
        return self.length / 2

    @property
    def back_x(self) -> float:
        return -self.length / 2

    @property
    def half_width(self) -> float:
        return self.width / 2

    @property
    def front(self) -> Outline:
        """The outline seen from the front, (y, z)."""
        half, low, belt, high = self.half_width, self.clearance, self.beltline, self.height
        right = [
            (half * 0.93, low),
            (half, belt * 0.62),
            (half * 0.97, belt),
            (half * self.roof_taper, high),
        ]
        left = [(-y, z) for y, z in reversed(right)]
        return [left[-1], *right, *left[:-1]]


def shell(body: Body, color: np.ndarray) -> Mesh:
    """The bodywork in one colour, with wheel arches."""
    arches = [(x, body.wheel_radius, body.wheel_radius * 1.16) for x in body.axles]
    vertices, faces = solid_from_outlines(body.side, body.top, body.front, body.resolution, 0.05, 0.05, arches)
    normals = vertex_normals(vertices, faces)
    outward = (normals * (vertices - vec(0, 0, body.height / 2))).sum(1).mean()
    normals *= np.sign(outward)
    return Mesh.create(vertices, faces, color, 0.28, normals=normals)


def end_windows(mesh: Mesh, body: Body, lower_by: float) -> np.ndarray:
    """Where the windscreen and the rear window are, (n,) bool; lower_by: metres from the roof down."""
    _, y, z = mesh.vertices.T
    taper = (1 - body.roof_taper) * (z - body.beltline) / (body.height - body.beltline)
    inside = abs(y) < body.half_width * (0.97 - taper) - 0.07
    return (abs(mesh.normals[:, 0]) > 0.3) & (z > body.beltline + 0.06) & (z < body.height - lower_by) & inside


def paint(mesh: Mesh, where: np.ndarray, color: tuple[float, float, float], roughness: float | None = None) -> None:
    """Colours the vertices `where` (n,) bool, in place."""
    mesh.colors[where] = vec(*color)
    if roughness is not None:
        mesh.roughness[where] = roughness


def paint_details(mesh: Mesh, body: Body) -> None:
    """Sill, lights, grille and number plates, in place."""
    x, y, z = mesh.vertices.T
    half, belt, front_x, back_x = body.half_width, body.beltline, body.front_x, body.back_x
    paint(mesh, z < body.clearance + 0.12, (0.02, 0.02, 0.02), 0.7)
    faces_ahead = mesh.normals[:, 0] > 0.15
    headlights = (x > front_x - 0.28) & (abs(y) > half * 0.52) & (abs(z - belt * 0.78) < 0.075) & faces_ahead
    paint(mesh, headlights, (0.85, 0.85, 0.8), 0.12)
    tail_lights = (x < back_x + 0.14) & (abs(y) > half * 0.58) & (abs(z - belt * 0.82) < 0.11)
    paint(mesh, tail_lights, (0.5, 0.01, 0.01), 0.2)
    grille = (x > front_x - 0.15) & (abs(y) < half * 0.5) & (abs(z - belt * 0.6) < 0.1)
    mesh.colors[grille] = vec(0.03, 0.03, 0.03) + 0.12 * (np.sin(z[grille] * 120) > 0)[:, None]
    plates = (abs(x) > front_x - 0.12) & (abs(y) < 0.25) & (abs(z - 0.45 * belt) < 0.06)
    paint(mesh, plates, (0.7, 0.7, 0.65))


def paint_dirt(mesh: Mesh) -> None:
    """Darkens the lower half unevenly, in place."""
    low = smoothstep(-mesh.vertices[:, 2], -0.55, -0.2)
    mesh.colors *= (1 - 0.35 * low * value_noise(mesh.vertices, 3, 3))[:, None]


def random_rim(rng: np.random.Generator) -> np.ndarray:
    """Colour of the rims, (3,): silver as a rule, else black."""
    return rgb("silver") if rng.uniform(0, 1) < 0.75 else vec(0.05, 0.05, 0.05)


def assemble(shell_: Mesh, body: Body, rim: np.ndarray, extras: list[Mesh]) -> tuple[Mesh, Keypoints]:
    """Shell, wheels, extras and floor in one mesh, with the wheels as keypoints."""
    meshes = [shell_]
    radius, half = body.wheel_radius, body.half_width
    for axle in body.axles:
        for sign in (-1, 1):
            meshes += wheel(axle, sign * (half - 0.13), radius, radius, 0.22, rim)
    meshes += extras
    floor = (body.length * 0.45, half * 0.8, 0.08)
    meshes.append(rounded_box((0, 0, body.clearance + 0.03), floor, 0.02, (0.01, 0.01, 0.01), 0.9, subdivisions=3))
    keypoints = {
        f"{side}_wheel_{end}": vec(axle, sign * half, radius)
        for sign, side in SIDES
        for end, axle in zip("fb", body.axles, strict=True)
    }
    return merge(meshes), keypoints


def wheel(x: float, y: float, z: float, radius: float, width: float, rim: np.ndarray) -> list[Mesh]:
    """A wheel about the y axis at (x, y, z): tyre, rim, hub and five spokes on the outer side. Metres."""
    sign = 1 if y > 0 else -1
    inner_y = y - sign * width / 2

    def disc(
        start: float, end: float, radii: list[float], color: np.ndarray, roughness: float, metallic: float = 0.0
    ) -> Mesh:
        path = [(x, inner_y + sign * width * share, z) for share in (start, end)]
        return loft(path, radii, color, 22, roughness, metallic)

    tire_path = [(x, y + share * width, z) for share in (-0.5, -0.45, 0, 0.45, 0.5)]
    tire_radii = [radius * 0.9, radius * 0.98, radius, radius * 0.98, radius * 0.9]
    meshes = [
        loft(tire_path, tire_radii, TIRE, 24, 0.75),
        disc(0.98, 1.03, [radius * 0.64, radius * 0.6], rim, 0.25, 0.9),
        disc(1.03, 1.05, [radius * 0.2, radius * 0.15], vec(0.1, 0.1, 0.1), 0.4),
    ]
    spoke_size = (radius * 0.56, width * 0.02, radius * 0.045)
    for i in range(5):
        center = (x, y + sign * width * 0.54, z)
        rotation = rotation_about("y", i * 1.2566)
        meshes.append(
            rounded_box(center, spoke_size, 0.004, (0.05, 0.05, 0.055), 0.5, subdivisions=3, rotation=rotation)
        )
    return meshes
