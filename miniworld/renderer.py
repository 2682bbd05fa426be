"""Mitsuba: one mesh, one principled material driven by vertex attributes, one environment map, two lamps."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .camera import Camera
from .lights import Lamp
from .mesh import Mesh


class MissingLibraryError(RuntimeError):
    """Something that the renderer needs is not installed."""


LIBRARIES = Path("/usr/lib")
LLVM_PATH = "DRJIT_LIBLLVM_PATH"
LLVM_HELP = (
    "Install it with `apt-get update && apt-get install -y libllvm19`, "
    f"or give the path of an LLVM library (16 or newer) in {LLVM_PATH}."
)


def _point_to_llvm() -> None:
    """Names the newest LLVM from 16 on to Dr.Jit, which would take an older one or none by itself."""
    if LLVM_PATH in os.environ:
        return
    found = [*LIBRARIES.glob("*-linux-gnu/libLLVM-1[6-9].so*"), *LIBRARIES.glob("*-linux-gnu/libLLVM-2*.so*")]
    if not found:
        raise MissingLibraryError(f"LLVM was not found. {LLVM_HELP}")
    os.environ[LLVM_PATH] = str(sorted(found)[-1])


_point_to_llvm()
try:
    import drjit as dr
    import mitsuba as mi
    import mitsuba_oidn as oidn
except ImportError as error:
    raise MissingLibraryError(f"{error}. Install what the renderer needs with `pip install ./miniworld`.") from error
try:
    mi.set_variant("llvm_ad_rgb")
except ImportError as error:
    raise MissingLibraryError(f"LLVM could not be loaded from {os.environ[LLVM_PATH]}. {LLVM_HELP}") from error

MAX_RADIANCE = 50
MAX_GUIDE_SAMPLES = 9
"""Samples a pixel for the denoiser's albedo and normals."""


def use_one_thread() -> None:
    """One process a core renders most."""
    dr.set_thread_count(1)


def mitsuba_scene(
    mesh: Mesh, camera: Camera, environment: np.ndarray, lamps: Sequence[Lamp], samples_per_pixel: int
) -> mi.Scene:
    """The scene as Mitsuba's; environment is a (h, 2h, 3) latitude-longitude map of radiance."""
    description = {
        "type": "scene",
        "mesh": _mitsuba_mesh(mesh),
        "sensor": _sensor(camera, samples_per_pixel),
        "env": {
            "type": "envmap",
            "bitmap": mi.Bitmap(np.ascontiguousarray(environment, np.float32)),
            "to_world": mi.ScalarTransform4f().rotate([1, 0, 0], 90),
        },
    }
    description |= {f"lamp{i}": _disk(lamp) for i, lamp in enumerate(lamps)}
    scene = mi.load_dict(description)
    parameters = mi.traverse(scene)
    # Opaque values: as literals they would compile the kernel anew for every camera.
    parameters["sensor.aperture_radius"] = dr.opaque(mi.Float, max(camera.aperture, 1e-6))
    parameters["sensor.focus_distance"] = dr.opaque(mi.Float, float(camera.focus))
    parameters.update()
    return scene


def _mitsuba_mesh(mesh: Mesh) -> mi.Mesh:
    def attribute(name: str) -> dict:
        return {"type": "mesh_attribute", "name": f"vertex_{name}"}

    material = {
        "type": "principled",
        "base_color": attribute("color"),
        "roughness": attribute("rough"),
        "metallic": attribute("metal"),
    }
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict({"type": "twosided", "material": material})
    result = mi.Mesh("all", len(mesh.vertices), len(mesh.faces), props=properties, has_vertex_normals=True)
    add: Any = result.add_attribute  # its stub knows no arrays
    add("vertex_color", 3, np.clip(mesh.colors, 0.002, 0.95).ravel().astype(np.float32))
    add("vertex_rough", 1, mesh.roughness.astype(np.float32))
    add("vertex_metal", 1, mesh.metallic.astype(np.float32))
    parameters = mi.traverse(result)
    parameters["vertex_positions"] = mesh.vertices.ravel()
    parameters["vertex_normals"] = mesh.normals.ravel().astype(np.float32)
    parameters["faces"] = mesh.faces.ravel().astype(np.uint32)
    parameters.update()
    return result


def _sensor(camera: Camera, samples_per_pixel: int) -> dict:
    size = camera.resolution
    return {
        "type": "thinlens",
        "fov": camera.fov,
        "aperture_radius": 0.01,  # set later, as is the focus
        "focus_distance": 1.0,
        "to_world": mi.ScalarTransform4f().look_at(
            origin=list(camera.eye), target=list(camera.target), up=list(camera.up_hint)
        ),
        "film": {
            "type": "hdrfilm",
            "width": size,
            "height": size,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        },
        "sampler": {"type": "multijitter", "sample_count": samples_per_pixel},
    }


def _disk(lamp: Lamp) -> dict:
    to_world = mi.ScalarTransform4f().look_at(
        origin=[float(x) for x in lamp.position], target=[float(x) for x in lamp.target], up=[0.01, 0.02, 1.0]
    )
    radiance = {"type": "rgb", "value": [float(x) for x in lamp.radiance]}
    return {
        "type": "disk",
        "to_world": to_world.scale(float(lamp.radius)),
        "emitter": {"type": "area", "radiance": radiance},
    }


@functools.cache
def _path_integrator(max_depth: int) -> mi.Integrator:
    return mi.load_dict({"type": "path", "max_depth": max_depth, "rr_depth": 9})


@functools.cache
def _guide_integrator() -> mi.Integrator:
    return mi.load_dict({"type": "aov", "aovs": "al:albedo,nn:sh_normal"})


def render_radiance(scene: mi.Scene, samples_per_pixel: int, seed: int, max_depth: int) -> np.ndarray:
    """Path-traced and denoised linear RGB, (h, w, 3) float32.

    The denoiser's albedo and normals come from a pass of their own: an aov integrator around the path
    tracer would double the cost.
    """
    render: Any = mi.render  # its stub wants Mitsuba's own integers
    radiance = render(scene, integrator=_path_integrator(max_depth), spp=samples_per_pixel, seed=seed)
    radiance = np.minimum(np.array(radiance), MAX_RADIANCE)
    guide_samples = min(samples_per_pixel, MAX_GUIDE_SAMPLES)
    guides = np.array(render(scene, integrator=_guide_integrator(), spp=guide_samples, seed=seed))
    albedo = np.ascontiguousarray(np.clip(guides[..., :3], 0, 1))
    normals = np.ascontiguousarray(guides[..., 3:6])
    return np.array(oidn.denoise(np.ascontiguousarray(radiance), albedo=albedo, normal=normals, hdr=True))


def trace(scene: mi.Scene, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First hits of the rays origin (3,) + t directions (n, 3), which need not be unit vectors.

    Returns t (n,), inf where nothing or a lamp is hit, and the index of the face hit (n,), -1 likewise.
    """
    lengths = np.linalg.norm(directions, axis=1)
    origins = np.broadcast_to(origin, directions.shape).T.astype(np.float32)
    unit = (directions / lengths[:, None]).T.astype(np.float32)
    ray = mi.Ray3f(mi.Point3f(np.ascontiguousarray(origins)), mi.Vector3f(np.ascontiguousarray(unit)))
    hit = scene.ray_intersect(ray)
    on_mesh = np.array(hit.is_valid() & (hit.emitter(scene) == None))  # noqa: E711 - an array of pointers
    distances = np.where(on_mesh, np.array(hit.t) / lengths, np.inf)
    return distances, np.where(on_mesh, np.array(hit.prim_index).astype(np.int64), -1)


def clear_sky(elevation: float, turbidity: float, directions: np.ndarray) -> np.ndarray:
    """Radiance of the Hosek-Wilkie sky without its sun, (n, 3), towards unit vectors (n, 3) above the horizon.

    The sun's azimuth is 0 (+x); elevation in radians.
    """
    sun_direction = [float(np.cos(elevation)), 0, float(np.sin(elevation))]
    emitter = mi.load_dict(
        {
            "type": "sunsky",
            "sun_direction": sun_direction,
            "turbidity": float(turbidity),
            "sun_scale": 0.0,
            "albedo": 0.2,
        }
    )
    interaction = dr.zeros(mi.SurfaceInteraction3f, len(directions))
    interaction.wi = -mi.Vector3f(directions.T)
    return np.array(emitter.eval(interaction)).T
