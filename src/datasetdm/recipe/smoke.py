"""Any recipe in small: every stage once, with the embedded model, on four images that are made on the spot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.pipelines.settings import FilterConfig
from datasetdm.recipe.schema import GRAMMAR, READ, REFERENCE, Recipe, Stage, texts, with_values
from datasetdm.records import DepthMap, Instances, Keypoints, Labels, Prompt, Sample, SemanticMap, Skeleton
from datasetdm.store.store import Store
from datasetdm.store.writer import write_store

IMAGES, SIDE = 4, 64
"""Number of the images, and the side of each in pixels."""
EMBEDDED = "mini:"
"""Data that come with the package stay, a part of them."""
LABELS = Labels(("sky", "person", "dog", "grass"), stuff=("sky", "grass"))
SKELETONS = {"person": Skeleton(("nose", "l_hand", "r_hand")), "dog": Skeleton(("nose", "tail"))}

LEARN = {"steps": 2, "batch": 2}
FIT_STEPS = 30
"""After fewer, no keypoint is sure enough to be called visible, and a student of keypoints has nothing to learn from."""
MAKE = {"backbone": None, "steps": 1, "guidance": 1.0, "batch": 2, "low_memory": False}
SMALL: dict[str, dict[str, Any]] = {
    "fit": {
        **LEARN, "steps": FIT_STEPS, "evaluate_every": FIT_STEPS, "variants": 1, "held_out": 0.0, "width": 32,
        "backbone": "mini", "lora": (), "size": None, "timesteps": None, "inversion": "renoise", "low_memory": False,
    },
    "prompts": {"source": "grammar", "embedding": "ngrams", "encoder": None, "candidates": 1.0, "count": IMAGES},
    "generate": {**MAKE, "count": IMAGES, "target": None, "compile": False, "negative": "", "teacher": None},
    "annotate": {"backbone": None, "low_memory": False, "teacher": None},
    "edit": MAKE,
    "train": {
        **LEARN, "variant": "tiny", "size": SIDE, "encoder": None, "frozen": False, "synthetic_limit": None, "onnx": False,
    },
    "filter": {"min_contrast": 0.0, "teacher": None},
    "evaluate": {"backbone": None, "low_memory": False, "shown": 2},
}  # fmt: skip
"""Kind of stage -> the settings that replace a recipe's own."""


def smoke(recipe: Recipe, folder: Path, write: bool = True) -> Recipe:
    """The recipe in small.

    Args:
        recipe: whatever it is, its data, weights and language models need not be there.
        folder: where the images are written that stand for all of its data.
        write: False: only the recipe is made.
    """
    labels = _labels([*_names(recipe)])
    data = folder / f"fixture-{hashlib.sha256(repr(labels).encode()).hexdigest()[:8]}"
    if write and (not data.exists() or len(Store(data)) < IMAGES):
        write_store((_image(i, labels) for i in range(IMAGES)), data, labels)
    stages = {name: _small(stage, str(data)) for name, stage in recipe.stages.items()}
    return Recipe.model_validate({"description": f"In small: {recipe.description}", "stages": stages})


def _small(stage: Stage, fixture: str) -> dict[str, Any]:
    """The stage's settings in small, with `fixture` for its data unless an earlier stage makes them."""
    own = stage.model_dump(exclude_unset=True)
    small = {"kind": stage.kind, **own, **SMALL.get(stage.kind, {})}
    for name in (*READ, "limbs_of", "copies_of"):
        given = texts(own.get(name))
        if any(not v.startswith((REFERENCE, EMBEDDED)) for v in given):
            stays = with_values(own[name], lambda v: v if v.startswith((REFERENCE, EMBEDDED)) else fixture)
            small |= {name: stays} | ({"images": None} if name == "data" and "images" in own else {})
        if any(v.startswith(EMBEDDED) for v in given):
            small |= {"data": {"limit": IMAGES}, "synthetic": {"synthetic_limit": IMAGES}}.get(name, {})
    if "limit" in own:
        small |= {"limit": IMAGES, "balance": False}
    made = {n for n in ("decoder", "model", "encoder") if str(own.get(n)).startswith(REFERENCE)}
    small |= {n: own[n] for n in made}
    small |= {n: v for n, v in (("decoder", "mini"), ("model", None)) if n in own.keys() - made}
    if stage.kind == "evaluate" and not made:
        small |= {"data": f"{EMBEDDED}test", "limit": IMAGES, "unseen": ()}  # what the embedded decoder knows
    if stage.kind == "generate" and not own["prompts"][0].startswith(REFERENCE):
        small["prompts"] = GRAMMAR
    for name in own.keys() & FilterConfig.model_fields.keys() - {"limbs_of", "copies_of", "teacher"}:
        small[name] = 1.0 if name == "tolerate" else 0.0  # the work is done, and nothing is rejected
    return small


# ---------------------------------------------------------------------- images
def _names(recipe: Recipe) -> Iterator[str]:
    """The labels that a recipe names; its images must have them."""
    for stage in recipe.stages.values():
        for name in ("unseen", "labels", "remap", "replace", "remove"):
            yield from getattr(stage, name, None) or ()
        for transform in (*getattr(stage, "transforms", ()), *getattr(stage, "synthetic_transforms", ())):
            mapping = transform.get("mapping")
            yield from mapping if isinstance(mapping, Mapping) else ()


def _labels(named: list[str]) -> Labels:
    names = tuple(dict.fromkeys([*LABELS.names, *named]))
    return Labels(names, stuff=LABELS.stuff, skeletons=SKELETONS)


def _image(number: int, labels: Labels) -> Sample:
    """Sky over grass, a person, a dog, and other labels in turn, with everything known about them."""
    rng = np.random.default_rng(number)
    ids = np.zeros((SIDE, SIDE), np.uint16)
    ids[SIDE // 2 :] = labels.index["grass"]
    things = [n for n in labels.names if n not in labels.stuff]
    shown = ["person", "dog", *things[2 + number % IMAGES :: IMAGES]][:8]
    masks = np.zeros((len(shown), SIDE, SIDE), bool)
    width = SIDE // len(shown)
    for i, mask in enumerate(masks):
        top = int(rng.integers(SIDE // 8, SIDE // 2))
        mask[top : top + SIDE // 3, i * width : (i + 1) * width - 1] = True
        ids[mask] = labels.index[shown[i]]
    colours = rng.integers(0, 256, (len(labels), 3))
    image = np.clip(colours[ids] + rng.normal(0, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    objects = Instances.from_masks(masks, [labels.index[n] for n in shown])
    points = [SKELETONS[n].points if n in SKELETONS else () for n in shown]
    places = objects.boxes[:, None, :2] + rng.random((len(shown), 3, 2)) * objects.boxes[:, None, 2:]
    seen = np.array([[2 * (k < len(p)) for k in range(3)] for p in points])
    depth = np.where(ids == 0, 0.0, 12 - 10 * np.arange(SIDE)[:, None] / SIDE)
    return Sample(
        f"{number}",
        image,
        labels,
        Prompt("a person and a dog on grass", origin="caption"),
        semantic=SemanticMap(ids),
        instances=objects,
        depth=DepthMap(depth.astype(np.float32), ids != 0),
        keypoints=Keypoints(places.astype(np.float32), seen.astype(np.uint8), tuple(points)),
    )
