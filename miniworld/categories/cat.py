"""Cats: stand, walk or sit; plain, patched or striped."""

from .quadruped import Species, category

SPECIES = Species(
    shoulder_height=(0.25, 0.32),
    body_length=1.3,
    chest_radius=0.19,
    hip_radius=0.18,
    leg_radius=0.06,
    neck_length=0.2,
    neck_angle=48,
    head_radius=0.17,
    snout_length=0.06,
    snout_radius=0.085,
    ear_length=0.13,
    tail_length=0.95,
    colors=("black", "white", "grey", "orange", "beige"),
    poses=("stand", "walk", "sit"),
    patterns=("plain", "patch", "belly", "stripe"),
    lively_tail=True,
    fur_length=0.05,
)
CATEGORY = category("cat", 8, SPECIES)
