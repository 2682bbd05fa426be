"""Cows: stand, walk or graze; horned unless black."""

from .quadruped import Species, category

SPECIES = Species(
    shoulder_height=(1.2, 1.45),
    body_length=1.2,
    chest_radius=0.255,
    hip_radius=0.24,
    leg_radius=0.058,
    neck_length=0.26,
    neck_angle=22,
    head_radius=0.13,
    snout_length=0.2,
    snout_radius=0.1,
    ear_length=0.13,
    tail_length=0.6,
    colors=("brown", "black", "white", "tan"),
    floppy_ears=1,
    horned=True,
    fur_length=0.02,
)
CATEGORY = category("cow", 10, SPECIES)
