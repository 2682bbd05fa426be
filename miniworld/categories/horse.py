"""Horses: stand, walk or graze; bare skin with a mane and a long tail."""

from .quadruped import Species, category

SPECIES = Species(
    shoulder_height=(1.35, 1.65),
    body_length=1.0,
    chest_radius=0.205,
    hip_radius=0.2,
    leg_radius=0.05,
    neck_length=0.5,
    neck_angle=50,
    head_radius=0.105,
    snout_length=0.27,
    snout_radius=0.075,
    ear_length=0.1,
    tail_length=0.5,
    colors=("brown", "black", "white", "tan", "grey"),
    patterns=("plain", "plain", "belly", "plain"),
    furry=False,
    mane=True,
)
CATEGORY = category("horse", 13, SPECIES)
