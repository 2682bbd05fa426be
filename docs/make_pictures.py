"""The images of the README and the documentation, from a demo's store: python docs/make_pictures.py [demo/store]"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from datasetdm.records import Sample
from datasetdm.store import Store
from datasetdm.viewer import paint

HERE = Path(__file__).parent
EDGE = 4
PAGE = (1280, 860)


def row(sample: Sample, colours: np.ndarray) -> np.ndarray:
    """Image, semantic map over it, objects over it, depth: u8[h 4w 3]."""
    semantic, depth, objects = sample.semantic, sample.depth, sample.instances
    assert semantic is not None and depth is not None and objects is not None
    labels = paint.paint_semantic(semantic, colours)[..., :3]
    mixed = (0.35 * sample.image + 0.65 * labels).astype(np.uint8)
    far = paint.paint_depth(depth)
    distance = np.where(far[..., 3:] > 0, far[..., :3], np.uint8(230))
    things = paint.paint_instances(objects).astype(float)
    alpha = things[..., 3:] / 255
    singled = ((1 - alpha) * sample.image + alpha * things[..., :3]).astype(np.uint8)
    return np.concatenate([sample.image, mixed, singled, distance], 1)


def grid(tiles: list[np.ndarray], columns: int) -> Image.Image:
    """Tiles with a white edge."""
    framed = [np.pad(t, ((0, EDGE), (0, EDGE), (0, 0)), constant_values=255) for t in tiles]
    rows = [np.concatenate(framed[i : i + columns], 1) for i in range(0, len(framed), columns)]
    return Image.fromarray(np.concatenate(rows))


def page(folder: Path) -> Image.Image:
    """What `datasetdm view` shows of a store, with its semantic maps."""
    command = [sys.executable, "-u", "-m", "datasetdm.cli", "view", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        assert server.stdout is not None
        address = next(m[0] for line in server.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+/\S*", line)))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": PAGE[0], "height": PAGE[1]}, reduced_motion="reduce")
        shown.goto(address)
        shown.wait_for_selector("#labels li")
        shown.wait_for_load_state("networkidle")
        picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
        browser.close()
        server.terminate()
    return picture


def main() -> None:
    """Write docs/demo.webp (ten annotated images), docs/mini.webp (8 x 8 images), both the first of the store, and
    docs/viewer.webp (the viewer's page over it)."""
    store = Store(sys.argv[1] if len(sys.argv) > 1 else "demo/store")
    page(store.folder).save(HERE / "viewer.webp", quality=85)
    samples = list(islice(store, 64))
    colours = paint.label_colours(store.labels)
    grid([row(s, colours) for s in samples[:10]], 2).save(HERE / "demo.webp", quality=90)
    grid([s.image for s in samples], 8).save(HERE / "mini.webp", quality=90)


if __name__ == "__main__":
    main()
