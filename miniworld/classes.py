"""Class ids of the surroundings; the things' ids (1..20) are with their categories."""

STUFF = {
    "sky": 21,
    "grass": 22,
    "sand": 23,
    "road": 24,
    "snow": 25,
    "water": 26,
    "floor": 27,
    "wall": 28,
    "building": 29,
    "tree": 30,
    "hill": 31,
    "other": 32,
}
