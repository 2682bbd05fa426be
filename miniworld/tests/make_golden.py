"""Writes golden/ anew, after a change of WORLD_VERSION: python -m miniworld.tests.make_golden.

The golden of version 1 was made by the prototype of this package, so that a test could show that both agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from miniworld.categories import CATEGORIES
from miniworld.recipe import SPLITS

if TYPE_CHECKING:
    from miniworld.sample import Sample

FOLDER = Path(__file__).parent / "golden"
SEEDS_A_CATEGORY = 3
INFO = ("caption", "place", "seed", "fov", "objects", "keypoints", "light")


def main() -> None:
    """Things first, then the samples that the present golden names: see that they cover all places and lights."""
    from miniworld.renderer import use_one_thread
    from miniworld.sample import render_sample

    things = {f"{name}-{seed}": _thing(name, seed) for name in CATEGORIES for seed in range(SEEDS_A_CATEGORY)}
    _write_lines(FOLDER / "things.json", things)
    use_one_thread()
    keys = list(json.loads((FOLDER / "samples.json").read_text()))
    texts, arrays = {}, {}
    for key in keys:
        split, index = key.split("-")
        sample = render_sample(SPLITS[split] + int(index), 9 if split == "captioned" else 16)
        texts[key] = {name: sample.info[name] for name in INFO}
        arrays |= {f"{key}.{name}": array for name, array in _arrays(sample).items()}
    _write_lines(FOLDER / "samples.json", texts)
    np.savez_compressed(FOLDER / "samples.npz", **arrays)


def block_means(values: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 pixels: (128, 128, ...) to (16, 16, ...)."""
    return values.astype(np.float32).reshape(16, 8, 16, 8, -1).mean((1, 3)).squeeze()


def _arrays(sample: Sample) -> dict[str, np.ndarray]:
    labels = sample.labels
    return {
        "classes": labels.classes,
        "instances": labels.instances,
        "image": block_means(sample.image).round().astype(np.uint8),
        "depth": block_means(np.minimum(labels.depth, 100)).astype(np.float16),
    }


def _thing(name: str, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    thing = CATEGORIES[name].make(rng)
    low, high = thing.mesh.bounds
    return {
        "color": thing.color,
        "pose": thing.pose,
        "vertices": len(thing.mesh.vertices),
        "low": _rounded(low),
        "high": _rounded(high),
        "mean_color": _rounded(thing.mesh.colors.mean(0)),
        "keypoints": {name: _rounded(point) for name, point in thing.keypoints.items()},
        "next_draw": rng.random(),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in np.ravel(values)]


def _write_lines(path: Path, entries: dict[str, dict]) -> None:
    """JSON with one entry a line."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
    path.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
