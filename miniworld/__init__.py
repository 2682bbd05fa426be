"""A procedural world in the spirit of Pascal VOC, rendered with exact labels."""

WORLD_VERSION = 1
"""Raise it with every change that alters an image or a label of any seed; the data files name it."""
