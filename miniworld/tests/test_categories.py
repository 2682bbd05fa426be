"""Every category builds, and builds what the prototype built (golden/things.json)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from miniworld.categories import CATEGORIES, Thing
from miniworld.classes import STUFF
from miniworld.colors import COLORS
from miniworld.places import PLACES

GOLDEN = json.loads((Path(__file__).parent / "golden" / "things.json").read_text())


@pytest.fixture(params=sorted(CATEGORIES), scope="module")
def made(request) -> tuple[str, Thing]:
    return request.param, CATEGORIES[request.param].make(np.random.default_rng(11))


def test_mesh_is_sound(made):
    _, thing = made
    mesh = thing.mesh
    count = len(mesh.vertices)
    assert mesh.vertices.shape == mesh.normals.shape == mesh.colors.shape == (count, 3)
    assert mesh.roughness.shape == mesh.metallic.shape == (count,)
    assert mesh.faces.min() >= 0 and mesh.faces.max() < count
    for values in (mesh.vertices, mesh.normals, mesh.colors, mesh.roughness):
        assert np.isfinite(values).all()
    assert (mesh.roughness > 0).all()


def test_keypoints_are_the_declared_ones_and_near_the_mesh(made):
    name, thing = made
    assert tuple(thing.keypoints) == CATEGORIES[name].keypoints
    low, high = thing.mesh.bounds
    margin = 0.15 * (high - low).max()
    for point in thing.keypoints.values():
        assert (point >= low - margin).all() and (point <= high + margin).all()


def test_colour_is_a_declared_one(made):
    name, thing = made
    assert thing.color in CATEGORIES[name].colors
    assert set(CATEGORIES[name].colors) <= set(COLORS)


@pytest.mark.parametrize("key", sorted(GOLDEN))
def test_same_seed_same_thing(key):
    name, seed = key.split("-")
    rng = np.random.default_rng(int(seed))
    thing = CATEGORIES[name].make(rng)
    golden = GOLDEN[key]
    low, high = thing.mesh.bounds
    size = (high - low).max()
    assert (thing.color, thing.pose) == (golden["color"], golden["pose"])
    assert len(thing.mesh.vertices) == pytest.approx(golden["vertices"], rel=1e-3)
    np.testing.assert_allclose(low, golden["low"], atol=1e-3 * size)
    np.testing.assert_allclose(high, golden["high"], atol=1e-3 * size)
    np.testing.assert_allclose(thing.mesh.colors.mean(0), golden["mean_color"], atol=1e-3)
    assert list(thing.keypoints) == list(golden["keypoints"])
    for name, point in golden["keypoints"].items():
        np.testing.assert_allclose(thing.keypoints[name], point, atol=2e-4)
    assert rng.random() == golden["next_draw"]  # as many numbers were sampled


def test_making_is_deterministic():
    first, second = (CATEGORIES["dog"].make(np.random.default_rng(3)) for _ in range(2))
    for name in ("vertices", "faces", "normals", "colors", "roughness"):
        np.testing.assert_array_equal(getattr(first.mesh, name), getattr(second.mesh, name))


def test_class_ids_are_apart_from_the_surroundings():
    assert not {category.class_id for category in CATEGORIES.values()} & set(STUFF.values())


def test_every_category_has_a_place_and_every_place_known_categories():
    listed = {name for place in PLACES.values() for name in place.categories}
    assert listed == set(CATEGORIES)
