"""Trains the oracle: python -m miniworld.score.train --data DIR --model DIR --minutes 15 --work DIR

A share of its pictures goes through the judged model's VAE first, others are blurred or noisy: a soft picture shall not
fool it. Writes weights and the features of all training renders into `weights/`.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pretrain import hardware
from ..pretrain.files import load_tensors, save_tensors
from .oracle import EMBEDDINGS, WEIGHTS, Oracle, Reading, look, normal, precision
from .renders import MOST, Renders, read_renders


@dataclass(frozen=True)
class OracleConfig:
    """batch: pictures a step. held_out: renders, the last ones, for its own figures. softened: share of the renders
    that are also seen through the VAE. ema: the most that the averaged weights keep a step."""

    batch: int = 32
    learning_rate: float = 2e-3
    held_out: int = 400
    softened: float = 0.2
    ema: float = 0.998


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.score.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of captioned-*.parquet with labels")
    parser.add_argument("--model", type=Path, required=True, help="pipeline folder whose VAE softens pictures")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint; the same command goes on")
    parser.add_argument("--minutes", type=float, default=15.0)
    options = parser.parse_args()
    config = OracleConfig()
    renders = read_renders(options.data, ["captioned"])
    kept = renders[: len(renders) - config.held_out]
    soft = soften(options.model, kept.images[: round(config.softened * len(kept))])
    oracle = train(config, kept, soft, options.minutes, options.work)
    save_tensors(WEIGHTS, {k: _half(v) for k, v in oracle.state_dict().items()}, {"held_out": config.held_out})
    features = look(oracle, renders.images).features
    save_tensors(EMBEDDINGS, {"features": features.half()}, {"renders": len(renders)})
    reading, truth = look(oracle, renders[len(kept) :].images), renders[len(kept) :]
    print("held-out captioned renders:", accuracy(reading.places, reading.presence, truth))


def train(config: OracleConfig, renders: Renders, soft: Tensor, minutes: float, work: Path) -> Oracle:
    """Learns for a while; the learning rate falls over the whole of it. Returns the averaged weights."""
    torch.manual_seed(0)
    oracle, average = Oracle(), Oracle().eval()
    optimiser = torch.optim.AdamW(oracle.parameters(), config.learning_rate, weight_decay=0.02)
    average.load_state_dict(oracle.state_dict())
    checkpoint, step, spent = work / "oracle.safetensors", 0, 0.0
    if checkpoint.is_file():
        average.load_state_dict(load_tensors(checkpoint))
        oracle.load_state_dict(average.state_dict())
    began = told = saved = time.monotonic()
    while spent < minutes * 60:
        falling = 0.5 * (1 + math.cos(math.pi * spent / minutes / 60))
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1, step / 200 + 0.01) * falling
        value = _step(oracle, optimiser, renders, soft, config.batch)
        step += 1
        _follow(average, oracle, min(config.ema, step / (10 + step)))
        now = time.monotonic()
        spent = now - began
        if now - told > 15:
            speed = step * config.batch / spent
            print(f"step {step}, {speed:.0f} pictures/s, loss {value:.3f}, {spent:.0f} s", flush=True)
            told = now
        if now - saved > 120:
            save_tensors(checkpoint, average.state_dict(), {"step": step})
            saved = now
    save_tensors(checkpoint, average.state_dict(), {"step": step})
    return average.eval()


def _step(oracle: Oracle, optimiser: torch.optim.Optimizer, renders: Renders, soft: Tensor, batch: int) -> float:
    rows = torch.randint(len(renders), (batch,))
    softened = (rows < len(soft)) & (torch.rand(batch) < 0.7)
    images = renders.images[rows]
    images[softened] = soft[rows[softened]]
    x, classes = _disturb(normal(images)), renders.classes[rows]
    flip = torch.rand(batch) < 0.5
    x[flip], classes[flip] = x[flip].flip(-1), classes[flip].flip(-1)
    oracle.train()
    with precision():
        reading = oracle(x)
    loss = loss_of(reading, renders, rows, classes)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(oracle.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def loss_of(reading: Reading, renders: Renders, rows: Tensor, classes: Tensor) -> Tensor:
    """Pixel labels (rare ones weigh more), counts and places."""
    truth = classes[:, 2::4, 2::4].long()
    weight = torch.ones(reading.classes.shape[1])
    weight[1:21] = 4
    pixels = F.cross_entropy(reading.classes, truth, weight)
    counts = F.cross_entropy(reading.counts.flatten(0, 1), renders.seen[rows].clamp(max=MOST).flatten())
    return pixels + 4 * counts + 0.3 * F.cross_entropy(reading.places, renders.places[rows])


def _disturb(x: Tensor) -> Tensor:
    """Blur for a third of the pictures, noise for a third, and another brightness and contrast for all."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.33, blurred, x)
    noise = torch.randn_like(x) * 0.1 * torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.33)
    gain, shift = 1 + 0.1 * torch.randn(len(x), 1, 1, 1), 0.05 * torch.randn(len(x), 1, 1, 1)
    return (x + noise) * gain + shift


def soften(model: Path, images: Tensor) -> Tensor:
    """Pictures through a pipeline's VAE and back, u8."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32).eval()
    rows = []
    with torch.no_grad(), hardware.autocast():
        for part in images.split(32):
            back = vae.decode(vae.encode(normal(part)).latent_dist.mean).sample.float()
            rows.append(((back.clamp(-1, 1) + 1) * 127.5).round().byte())
    return torch.cat(rows)


def accuracy(places: Tensor, presence: Tensor, truth: Renders) -> dict[str, float]:
    """Places right; categories found at the probability 0.5, and said to be there though they are not."""
    there, said = truth.counts > 0, presence > 0.5
    return {
        "place": float((places.argmax(1) == truth.places).float().mean()),
        "found": float(said[there].float().mean()),
        "false_alarm": float(said[truth.seen == 0].float().mean()),
    }


def _follow(average: Oracle, oracle: Oracle, keep: float) -> None:
    with torch.no_grad():
        for a, b in zip(average.state_dict().values(), oracle.state_dict().values(), strict=True):
            a.lerp_(b, 1 - keep) if a.is_floating_point() else a.copy_(b)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    main()
