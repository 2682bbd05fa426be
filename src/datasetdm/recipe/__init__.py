"""Recipes: named stages, each a stream or a fit, that turn prompts and labelled images into data sets."""
