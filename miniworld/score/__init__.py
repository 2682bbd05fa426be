"""Says how good a text-to-image model of the mini world is. `python -m miniworld.score --help`."""
