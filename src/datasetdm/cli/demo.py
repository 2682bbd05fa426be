"""The whole way once, with the embedded model, in a few minutes on a laptop."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from datasetdm.backbones import load_backbone
from datasetdm.cli.progress import console, export_with_bars, fit_with_bars, gallery_with_bars, generate_with_bars
from datasetdm.decoder.model import CONFIG
from datasetdm.exporters import require_free
from datasetdm.exporters.formats.coco import DESCRIPTION
from datasetdm.pipelines.fit import FitConfig
from datasetdm.pipelines.generate import DatasetGenerator
from datasetdm.prompts import read_prompts
from datasetdm.prompts.grammar import Grammar
from datasetdm.readers import read
from datasetdm.store import Store


def run(*, fit: bool, count: int, seed: int, prompts: Sequence[str] | None, out: Path, device: str) -> Path:
    """Fill `out` with `store/`, `coco/` and `gallery.html`; returns the gallery's path."""
    started = time.monotonic()
    if not _is_ours(out / "coco"):
        require_free(out / "coco")
    texts = read_prompts(prompts) if prompts else Grammar.load().compose(count, seed)
    decoder = str(_fit(out / "decoder", device)) if fit else "mini"
    if not fit:
        console.print("P-Decoder: the shipped one (--fit fits it anew on mini:train)")
    generator = DatasetGenerator(texts, decoder=decoder, device=device, seed=seed, batch=min(16, count))
    generate_with_bars(generator, out / "store", count)
    store = Store(out / "store")
    if _is_ours(out / "coco"):
        shutil.rmtree(out / "coco")  # an earlier demo's; everything in it follows from the store
    export_with_bars(store, "coco", out / "coco")
    page = (out / "gallery.html").resolve()
    gallery_with_bars(store, page, count)
    per_unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_unit / 1024
    console.print(f"{len(store)} annotated pictures in {time.monotonic() - started:.0f} s, peak memory {peak:.1f} GB")
    return page


def _is_ours(folder: Path) -> bool:
    """Whether a COCO folder was written by this software."""
    try:
        content = json.loads((folder / "annotations" / "instances.json").read_text(encoding="utf-8"))
        return content["info"]["description"] == DESCRIPTION
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fit(folder: Path, device: str) -> Path:
    """A decoder fitted on the packaged labelled pictures; one that is finished already is kept."""
    if (folder / CONFIG).exists():
        console.print(f"P-Decoder: the one fitted before in {folder}")
        return folder
    console.print("P-Decoder: fitted now on mini:train, 100 labelled pictures")
    figures = fit_with_bars(read("mini:train"), folder, load_backbone("mini", device=device), FitConfig())
    console.print(f"held-out figures: {dict(figures)}")
    return folder
