"""A large image with many objects in a server process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasetdm.records import Instances, MaskStack, Sample
from datasetdm.store import write_store
from factory import LABELS
from served import Client

HEIGHT, WIDTH, OBJECTS = 3000, 4000, 200
LIMIT = 300
"""Megabytes. With every mask dense, the objects alone would be 2,400."""


def ellipse(row: int, column: int, radius: int) -> np.ndarray:
    """Run lengths of an ellipse, cut off at the image's edges."""
    columns = np.arange(max(0, column - radius), min(WIDTH, column + radius))
    half = np.sqrt(radius**2 - (columns - column) ** 2) * 0.7
    tops, bottoms = np.clip(row - half, 0, HEIGHT - 1).astype(int), np.clip(row + half, 1, HEIGHT).astype(int)
    edges = (np.stack([tops, np.maximum(bottoms, tops + 1)], 1) + columns[:, None] * HEIGHT).ravel()
    return np.diff(edges, prepend=0, append=HEIGHT * WIDTH)


def large_sample() -> Sample:
    """Noise of blocks, and ellipses."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    places = zip(
        rng.integers(0, HEIGHT, OBJECTS), rng.integers(0, WIDTH, OBJECTS), rng.integers(40, 300, OBJECTS), strict=True
    )
    masks = MaskStack([ellipse(*place) for place in places], (HEIGHT, WIDTH))
    objects = Instances(masks, rng.integers(0, len(LABELS), OBJECTS))
    return Sample("large", blocks.repeat(4, 0).repeat(4, 1), LABELS, instances=objects)


def peak(process: subprocess.Popen[str]) -> float:
    """The most memory that a process has held, in megabytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s*(\d+)", status)
    return int(peak) / 1024


@pytest.mark.slow
def test_a_large_image_with_many_objects(tmp_path: Path) -> None:
    write_store([large_sample()], tmp_path / "s", LABELS)
    command = [sys.executable, "-m", "datasetdm.cli", "view", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            client = Client(process.stdout.readline().split()[0])
            assert client.get("/api/samples")["items"][0]["objects"] == OBJECTS
            client.get("/api/summary")
            assert client.ask("/image/0/image?side=512").status == 200
            assert len(client.get("/api/sample/0/shapes", side=512)["objects"]) == OBJECTS
            assert client.ask("/image/0/image").status == 200
            assert len(client.get("/api/sample/0", side=2048)["shapes"]["objects"]) == OBJECTS
            assert peak(process) < LIMIT
        finally:
            process.terminate()
