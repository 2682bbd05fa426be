"""One file per format that is read."""
