"""The README's example of a new category works as it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CHECK = """
import numpy as np
from miniworld.categories import CATEGORIES
from miniworld.places import PLACES
from miniworld.recipe import draw_recipe
category = CATEGORIES["train"]
thing = category.make(np.random.default_rng(0))
assert tuple(thing.keypoints) == category.keypoints and thing.color in category.colors
assert abs(thing.mesh.bounds[0][2]) < 0.01, "stands on the ground"
assert PLACES["snow"].categories[-1] == "train"
assert any(draw_recipe(seed).subject == "train" for seed in range(200))
"""


def test_example(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.S)
    shutil.copytree(PACKAGE, tmp_path / "miniworld", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    (tmp_path / "miniworld" / "categories" / "train.py").write_text(example)
    subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, check=True)
