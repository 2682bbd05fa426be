"""python -m miniworld.score [--json PATH] [--sheet PATH] [--model DIR] [--count 800]

Draws the captions of the held-out renders and lets the oracle compare: what was asked for and is there, each also as a
fraction of the same figure on the renders themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from datasetdm.io.files import write_json
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from ..pretrain import hardware
from . import figures
from .oracle import EMBEDDINGS, Reading, load_oracle, look, normal
from .renders import CATEGORIES, Renders, read_renders

ROOT = Path(__file__).parent.parent.parent
STEPS, GUIDANCE, BATCH = 20, 6.0, 16


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.score", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--sheet", type=Path, help="write a sheet of the first 64 images there")
    parser.add_argument("--model", type=Path, default=ROOT / "src/datasetdm/assets/mini", help="pipeline folder")
    parser.add_argument("--renders", type=Path, default=ROOT / "data/miniworld", help="folder of the labelled renders")
    parser.add_argument("--count", type=int, default=800, help="images to generate, for a quick look fewer")
    options = parser.parse_args(arguments)
    if not 2 * BATCH <= options.count <= 800:
        parser.error(f"--count {options.count}: expected {2 * BATCH} to 800")
    note = options.model / "training.json"
    if not note.is_file():
        parser.error(f"{note} is missing: miniworld.pretrain export writes it")
    value = score(options.model, options.renders, options.count, options.sheet)
    print(json.dumps(value, indent=2))
    if options.json:
        write_json(options.json, value)


def score(model: Path, folder: Path, count: int, sheet: Path | None = None) -> dict[str, Any]:
    """All figures of one pipeline folder, fractions between 0 and 1."""
    note = json.loads((model / "training.json").read_text())
    oracle, held = load_oracle(), read_renders(folder, ["test"])
    others = read_renders(folder, ["train", "val"])
    pipeline = load_pipeline(model)
    asked = held[:count]
    images, seconds = draw(pipeline, asked.captions)
    if sheet:
        write_sheet(images, sheet)
    true, made, rest = look(oracle, held.images), look(oracle, images), look(oracle, others.images)
    values: dict[str, Any] = {"preset": note["preset"], "samples_seen": note["samples_seen"]}
    values |= vae_figures(pipeline.vae, held.images)
    values |= prompt_figures(made, asked, true, held, figures.choose_thresholds(rest.presence, others.seen))
    values |= spread_figures(made, true, rest)
    size = sum(p.stat().st_size for p in model.glob("*/*.safetensors"))
    values |= {"weights_mb": size / 1e6, "seconds_per_picture": seconds, "count": count}
    return values | stamp()


# ---------------------------------------------------------------------- images
def load_pipeline(model: Path) -> StableDiffusionPipeline:
    """The folder as a stock pipeline, in float32, its own scheduler."""
    pipeline = StableDiffusionPipeline.from_pretrained(model).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(hardware.device())


def draw(pipeline: StableDiffusionPipeline, prompts: list[str]) -> tuple[Tensor, float]:
    """Images u8[n 3 h w], the i-th from seed i, and seconds per image."""
    rows, began = [], time.monotonic()
    for first in track(range(0, len(prompts), BATCH), "draw"):
        texts = prompts[first : first + BATCH]
        seeds = [torch.Generator(hardware.device()).manual_seed(first + i) for i in range(len(texts))]
        with hardware.autocast():
            out = pipeline(texts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds, output_type="pt")
        rows.append((out.images.float() * 255).round().byte().cpu())
    return torch.cat(rows), (time.monotonic() - began) / len(prompts)


def write_sheet(images: Tensor, path: Path, side: int = 8) -> None:
    """The first images as one, `side` per row."""
    h, w = images.shape[-2:]
    page = Image.new("RGB", (side * w, side * h))
    for i, image in enumerate(images[: side * side]):
        page.paste(Image.fromarray(image.movedim(0, -1).numpy()), (i % side * w, i // side * h))
    page.save(path)


# ---------------------------------------------------------------------- figures
@torch.no_grad()
def vae_figures(vae: Any, images: Tensor) -> dict[str, float]:
    """PSNR of held-out renders that go through the VAE and back, and of their colours."""
    made = []
    with hardware.autocast():
        for part in images.split(32):
            back = vae.decode(vae.encode(normal(part).to(vae.device)).latent_dist.mean).sample
            made.append(((back.float().clamp(-1, 1) + 1) / 2).cpu())
    back, true = torch.cat(made), images.float() / 255
    colours = figures.psnr(figures.opponents(back), figures.opponents(true))
    return {"vae_psnr": figures.psnr(back, true), "colour_psnr": colours}


def prompt_figures(made: Reading, asked: Renders, true: Reading, held: Renders, bar: Tensor) -> dict[str, Any]:
    """What the captions ask for and the oracle finds; `_own`: on the renders that the captions describe."""
    values: dict[str, Any] = {}
    for name, kinds in (("category_found", 1), ("two_categories_found", 2)):
        here = figures.found(made.presence, bar, asked.counts, kinds)
        own = figures.found(true.presence, bar, held.counts, kinds)
        values |= {name: here / own, f"{name}_absolute": here, f"{name}_own": own}
    places = [float((r.places.argmax(1) == t.places).float().mean()) for r, t in ((made, asked), (true, held))]
    counts = [figures.counted(r.counts, t.counts) for r, t in ((made, asked), (true, held))]
    for name, (here, own) in (("place_found", places), ("count_found", counts)):
        values |= {name: here / own, f"{name}_absolute": here, f"{name}_own": own}
    values["false_alarm"] = figures.false_alarms(made.presence, bar, asked.counts)
    values["false_alarm_own"] = figures.false_alarms(true.presence, bar, held.seen)
    values["found_by_category"] = _by_category(made, asked, bar)
    values["found_by_category_own"] = _by_category(true, held, bar)
    return values


def _by_category(reading: Reading, renders: Renders, bar: Tensor) -> dict[str, float]:
    said = reading.presence > bar
    named = ((c, name, renders.counts[:, c] > 0) for c, name in enumerate(CATEGORIES))
    return {name: round(float(said[rows, c].float().mean()), 3) for c, name, rows in named if rows.any()}


def spread_figures(made: Reading, true: Reading, rest: Reading) -> dict[str, float]:
    """How far the images are from renders as a set, and how near to single ones of the training."""
    n = len(made.features)
    distance = figures.frechet(made.features.numpy(), true.features.numpy())
    both = torch.cat([rest.features, true.features])
    both = both[torch.randperm(len(both), generator=torch.Generator().manual_seed(0))]
    unit = figures.frechet(both[:n].numpy(), both[n : n + len(true.features)].numpy())
    training = load_file(EMBEDDINGS)["features"].float()
    return {
        "frechet_ratio": distance / unit,
        "frechet": distance,
        "frechet_renders": unit,
        "memorised": figures.memorised(made.features[:400], true.features, training),
    }


def stamp() -> dict[str, Any]:
    """Where and of what the figures are."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {"seed": 0, "commit": git.stdout.strip(), "machine": hardware.describe()}


if __name__ == "__main__":
    main()
