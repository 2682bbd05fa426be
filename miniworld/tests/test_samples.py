"""Whole samples: the same as the prototype's (golden/samples.*), the same twice, and sound.

The golden is 14 samples, all places and lights, made by the prototype. Another processor changes the noise of the
path tracing, so images are compared as means of 8 x 8 pixels.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from miniworld.categories import CATEGORIES
from miniworld.classes import STUFF
from miniworld.lights import LIGHTS
from miniworld.places import PLACES
from miniworld.recipe import SPLITS, draw_recipe
from miniworld.tests.make_golden import block_means

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "samples.json").read_text())
OPENING = r"(?:a photo of |a photograph of |a picture of )?"


@pytest.fixture(scope="module")
def render(renderer):
    """Renders a golden sample by its key, once."""
    from miniworld.sample import render_sample

    done = {}

    def sample(key: str):
        if key not in done:
            done[key] = render_sample(*_seed_and_samples(key))
        return done[key]

    return sample


def _seed_and_samples(key: str) -> tuple[int, int]:
    split, index = key.split("-")
    return SPLITS[split] + int(index), 9 if split == "captioned" else 16


@pytest.mark.parametrize("key", GOLDEN)
def test_same_seed_same_sample(render, key):
    sample, golden = render(key), GOLDEN[key]
    for name in ("caption", "place", "light", "seed", "fov", "objects"):
        assert sample.info[name] == golden[name], name
    assert json.dumps(list(sample.info["keypoints"].items())) == json.dumps(list(golden["keypoints"].items()))
    with np.load(FOLDER / "samples.npz") as arrays:
        assert (sample.labels.classes != arrays[f"{key}.classes"]).sum() <= 3
        assert (sample.labels.instances != arrays[f"{key}.instances"]).sum() <= 3
        depth = block_means(np.minimum(sample.labels.depth, 100))
        np.testing.assert_allclose(depth, arrays[f"{key}.depth"], rtol=0.01, atol=0.5)
        apart = abs(block_means(sample.image) - arrays[f"{key}.image"])
        assert apart.mean() < 1 and apart.max() < 10


def test_the_golden_covers_every_place_and_light():
    assert {golden["place"] for golden in GOLDEN.values()} == set(PLACES)
    assert {golden["light"] for golden in GOLDEN.values()} == set(LIGHTS)


def test_rendering_twice_gives_the_same_bits(renderer):
    from miniworld.sample import render_sample

    first, second = (render_sample(5, 4) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels.depth, second.labels.depth)
    assert first.info == second.info


@pytest.mark.parametrize("key", GOLDEN)
def test_labels_are_sound(render, key):
    sample = render(key)
    labels, info = sample.labels, sample.info
    assert sample.image.shape == (128, 128, 3) and sample.image.dtype == np.uint8
    ids = {category.class_id for category in CATEGORIES.values()} | set(STUFF.values())
    assert set(np.unique(labels.classes).tolist()) <= ids
    assert ((labels.classes == STUFF["sky"]) == (labels.depth == 0)).all()
    for thing in info["objects"]:
        own = labels.instances == thing["id"]
        assert thing["area"] == pytest.approx(own.mean(), abs=1e-4)
        assert (labels.classes[own] == CATEGORIES[thing["cat"]].class_id).all()
        keypoints = info["keypoints"][str(thing["id"])]
        assert tuple(keypoints) == CATEGORIES[thing["cat"]].keypoints
        assert all(visibility in (0, 1, 2) for _, _, visibility in keypoints.values())
    assert info["objects"][0]["area"] >= 0.012


@pytest.mark.parametrize("key", GOLDEN)
def test_caption_parses(key):
    info = GOLDEN[key]
    lights = "|".join(re.escape(phrase) for phrase in LIGHTS[info["light"]].phrases)
    places = "|".join(re.escape(phrase) for phrase in PLACES[info["place"]].phrases)
    match = re.fullmatch(rf"{OPENING}(.+?) (?:{places})(?: (?:{lights}))?", info["caption"].strip())
    assert match, info["caption"]
    main = CATEGORIES[info["objects"][0]["cat"]]
    words = (main.noun, main.plural, info["objects"][0]["pose"])
    assert any(word in match[1] for word in words)


def test_a_recipe_is_fit_for_its_subject():
    for seed in range(300):
        recipe = draw_recipe(seed)
        assert recipe.subject in recipe.place.categories
        assert recipe.light.indoor == recipe.place.indoor
