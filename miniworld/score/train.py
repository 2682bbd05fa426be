"""Trains the oracle: python -m miniworld.score.train --data DIR --model DIR --minutes 15 --work DIR

A fraction of its images goes through the judged model's VAE first, others are blurred or noisy: a soft image shall not
fool it. Writes weights and the features of all training renders into `weights/`.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)
from torch import Tensor
from torch.nn import functional as F

from ..pretrain import hardware
from .oracle import EMBEDDINGS, WEIGHTS, Oracle, Reading, look, normal, precision
from .renders import MOST, Renders, read_renders

WARM_UP, WEIGHT_DECAY, MAX_GRADIENT = 200, 0.02, 5.0
"""Steps in which the learning rate rises; of AdamW; norm at which gradients are clipped."""

LOG_SECONDS, SAVE_SECONDS = 15, 120


@dataclass(frozen=True)
class OracleConfig:
    """Settings.

    Args:
        batch: images per step.
        held_out: renders, the last ones, for its own figures.
        softened: fraction of the renders that are also seen through the VAE.
        ema: the most that the averaged weights keep per step.
    """

    batch: int = 32
    learning_rate: float = 2e-3
    held_out: int = 400
    softened: float = 0.2
    ema: float = 0.998


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m miniworld.score.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of captioned-*.parquet with labels")
    parser.add_argument("--model", type=Path, required=True, help="pipeline folder whose VAE softens images")
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
    """Learn for a while, from the checkpoint if there is one; the learning rate falls over the whole of it.

    Returns:
        The averaged weights.
    """
    torch.manual_seed(0)
    oracle = Oracle()
    optimiser = torch.optim.AdamW(oracle.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)
    learner, average = Learner(oracle, optimiser, MAX_GRADIENT), WeightAverage(oracle)
    checkpoint = work / "oracle.safetensors"
    found = load_checkpoint(checkpoint, average, {"model": learner})
    step = found.numbers["step"] if found else 0
    spent, first, began = 0.0, step, time.monotonic()
    logged = saved = began
    while spent < minutes * 60:
        rate = warm_up(step, WARM_UP) * cosine(spent / minutes / 60)
        value = _step(learner, renders, soft, config.batch, config.learning_rate * rate)
        step += 1
        average.update(average_decay(step, config.ema))
        now = time.monotonic()
        spent = now - began
        if now - logged > LOG_SECONDS:
            speed = (step - first) * config.batch / spent
            print(f"step {step}, {speed:.0f} images/s, loss {value:.3f}, {spent:.0f} s", flush=True)
            logged = now
        if now - saved > SAVE_SECONDS:
            save_checkpoint(checkpoint, average, {"model": learner}, {"step": step})
            saved = now
    save_checkpoint(checkpoint, average, {"model": learner}, {"step": step})
    oracle.load_state_dict(average.module.state_dict())
    return oracle.eval()


def _step(learner: Learner, renders: Renders, soft: Tensor, batch: int, rate: float) -> float:
    oracle = learner.module
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
    learner.step(loss, rate)
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
    """Blur for a third of the images, noise for a third, and another brightness and contrast for all."""
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.33, blurred, x)
    noise = torch.randn_like(x) * 0.1 * torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.33)
    gain, shift = 1 + 0.1 * torch.randn(len(x), 1, 1, 1), 0.05 * torch.randn(len(x), 1, 1, 1)
    return (x + noise) * gain + shift


def soften(model: Path, images: Tensor) -> Tensor:
    """Images through a pipeline's VAE and back, u8."""
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


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    main()
