"""Renders of night, fog and snow to test on, made once: python -m benchmarks.students.renders OUT [--count N].

About a second each on one core. Their seeds are of the test split, far from those of its 800 renders; the light (night, fog) or
the place (snow) is put in the place of the one that the seed draws, as the rest of it allows.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import count as count_from
from pathlib import Path
from typing import Any

from miniworld.lights import LIGHTS
from miniworld.pack import pack
from miniworld.places import PLACES
from miniworld.recipe import SPLITS, Recipe, draw_recipe

from benchmarks import common  # noqa: F401  (finds the package miniworld)
from miniworld import WORLD_VERSION

CONDITIONS = ("night", "fog", "snow")
COUNT = 150
"""Renders per condition."""
FIRST = 100_000
"""Of the seeds, within the test split."""
SEEDS_PER_CONDITION = 100_000
SAMPLES_PER_PIXEL = 16
RULES = 1
"""Raised whenever other renders would be made."""


def identity(count: int) -> dict[str, Any]:
    """What the renders depend on, JSON-ready."""
    return {"rules": RULES, "world": WORLD_VERSION, "conditions": list(CONDITIONS), "count": count}


def recipes(condition: str) -> Iterator[tuple[int, Recipe]]:
    """Seeds with recipes that show the condition, without end."""
    start = SPLITS["test"] + FIRST + SEEDS_PER_CONDITION * CONDITIONS.index(condition)
    for seed in count_from(start):
        own = draw_recipe(seed)
        if condition == "snow":
            fits = own.subject in PLACES["snow"].categories and own.light.name not in ("night", "fog")
            if fits and not own.light.indoor:
                yield seed, replace(own, place=PLACES["snow"])
        elif not own.place.indoor and own.place.name not in ("sky", "snow"):
            yield seed, replace(own, light=LIGHTS[condition])


def render_all(folder: Path, count: int) -> list[Path]:
    """Prefixes of the renders' files, one per condition, rendered unless they are there."""
    return [_render(folder / f"{condition}-{count}", condition, count) for condition in CONDITIONS]


def _render(folder: Path, condition: str, count: int) -> Path:
    """The prefix of one condition's file in `folder`."""
    if not list(folder.glob("test-*.parquet")):
        from miniworld.render import members
        from miniworld.renderer import use_one_thread
        from miniworld.sample import render_sample

        use_one_thread()
        folder.mkdir(parents=True, exist_ok=True)
        path, own = folder / f"test-{FIRST:06d}.tar", recipes(condition)
        with tarfile.open(path, "w") as tar:
            for index in range(count):
                seed, recipe = next(own)
                sample = render_sample(seed, SAMPLES_PER_PIXEL, recipe)
                for name, data in members(f"{condition}-{index:06d}", sample, True):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        pack(folder, folder, "test")
        path.unlink()
    return folder / "test"


def main(arguments: list[str] | None = None) -> None:
    """Render."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder; of the tables: WORK/renders")
    parser.add_argument("--count", type=int, default=COUNT, help="renders per condition")
    options = parser.parse_args(arguments)
    for prefix in render_all(options.out, options.count):
        print(prefix)


if __name__ == "__main__":
    main()
