"""Dogs: stand, walk or sit; ears up or down, fur short or long."""

from .quadruped import Species, category

SPECIES = Species(
    shoulder_height=(0.32, 0.65),
    body_length=1.08,
    chest_radius=0.19,
    hip_radius=0.15,
    leg_radius=0.058,
    neck_length=0.30,
    neck_angle=52,
    head_radius=0.135,
    snout_length=0.17,
    snout_radius=0.07,
    ear_length=0.16,
    tail_length=0.55,
    colors=("brown", "black", "white", "tan", "beige", "grey"),
    poses=("stand", "walk", "sit"),
    floppy_ears=0.5,
    ear_droop=0.9,
    lively_tail=True,
)
CATEGORY = category("dog", 12, SPECIES)
