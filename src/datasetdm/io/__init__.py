"""Files, codecs, settings and registries: what every folder needs, and NumPy at most."""
