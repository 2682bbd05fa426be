"""Sheep: stand, walk or graze; curly, often with a dark face."""

from .quadruped import Species, category

SPECIES = Species(
    shoulder_height=(0.6, 0.8),
    body_length=1.12,
    chest_radius=0.27,
    hip_radius=0.27,
    leg_radius=0.045,
    neck_length=0.24,
    neck_angle=42,
    head_radius=0.115,
    snout_length=0.14,
    snout_radius=0.07,
    ear_length=0.11,
    tail_length=0.12,
    colors=("white", "beige", "black"),
    patterns=("plain", "plain", "belly", "plain"),
    floppy_ears=1,
    dark_face=0.6,
    bump=0.05,
    bump_frequency=14,
    fur_length=0.07,
    fur_jitter=0.5,
)
CATEGORY = category("sheep", 17, SPECIES, plural="sheep")
