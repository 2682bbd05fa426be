"""Pretraining of the pixel network's encoder: which words does an image's caption hold?

To the mini world's captioned renders this is what ImageNet is to photographs. The labelled splits are never seen.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from miniworld.pretrain.data import read
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import common  # noqa: F401  (finds the package miniworld)
from benchmarks.baselines.pixels import Encoder
from datasetdm.decoder.blocks.pixel import Standardise
from datasetdm.decoder.model import autocast
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.training.loop import Learner, cosine, warm_up

STOP = {"a", "an", "the", "of", "on", "in", "at", "and", "with", "to", "its", "is", "by"}
BATCH, RATE, WARM_UP, HELD_OUT = 64, 2e-3, 50, 512


class WordNet(nn.Module):
    """The encoder with one logit per word."""

    def __init__(self, words: int):
        super().__init__()
        self.norm, self.encoder = Standardise(3), Encoder()
        self.words = nn.Linear(2 * self.encoder.specs[-1].channels, words)

    def forward(self, images: Tensor) -> Tensor:
        last = list(self.encoder(self.norm(images)).values())[-1]
        return self.words(torch.cat([last.mean((2, 3)), last.amax((2, 3))], 1)).float()


def vocabulary(captions: Sequence[str], share: float = 0.002) -> list[str]:
    """Words in at least this fraction of the captions (and two of them), the most frequent first."""
    counts = Counter(w for c in captions for w in dict.fromkeys(_words(c)))
    return [w for w, n in counts.most_common() if n >= max(2, share * len(captions))]


def pretrain(folder: Path, out: Path, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Learn for `seconds` on the captioned renders in `folder`, write the encoder to `out`; the story of it."""
    data = read([folder])
    words = vocabulary(data.captions)
    truth = word_table(data.captions, words)
    images, start = data.images(), time.perf_counter()
    net, losses, steps = fit(images, truth, lambda _: (time.perf_counter() - start) / seconds, seed)
    save_tensors(out, net.encoder.state_dict())
    story = {"pictures": len(data), "words": len(words), "steps": steps, "seconds": seconds}
    return story | {"first_loss": losses[0], "last_loss": losses[-1]}


def fit(
    images: Tensor, truth: Tensor, progress: Callable[[int], float], seed: int
) -> tuple[WordNet, tuple[float, float], int]:
    """Learn until `progress(steps)` is 1.

    Args:
        images: u8[n 3 h w]. truth: which words each image's caption holds, f[n words].

    Returns:
        The network, its losses on held-out images before and after, and the steps taken.
    """
    torch.manual_seed(seed)
    net = WordNet(truth.shape[1])
    held = min(HELD_OUT, len(images) // 10)
    images, held_images, truth, held_truth = images[held:], images[:held], truth[held:], truth[:held]
    net.norm.measure([images[:256].float() / 255])
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.05)
    before, steps = _loss(net, held_images, held_truth), 0
    learner = Learner(net, optimiser)
    while (done := progress(steps)) < 1:
        rows = torch.randint(len(images), (min(BATCH, len(images)),))
        view = images[rows].float() / 255
        view = view.flip(-1) if steps % 2 else view
        view = (view * (0.8 + 0.4 * torch.rand(len(view), 1, 1, 1))).clamp(0, 1)
        net.train()
        with autocast(view.device):
            logits = net(view)
        loss = F.binary_cross_entropy_with_logits(logits, truth[rows])
        learner.step(loss, RATE * warm_up(steps, WARM_UP) * cosine(done))
        steps += 1
    return net, (before, _loss(net, held_images, held_truth)), steps


@torch.no_grad()
def _loss(net: WordNet, images: Tensor, truth: Tensor) -> float:
    net.eval()
    parts = [net(x.float() / 255) for x in images.split(BATCH)]
    return float(F.binary_cross_entropy_with_logits(torch.cat(parts), truth))


def word_table(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """Which words each caption holds, f[captions words]."""
    index = {w: i for i, w in enumerate(words)}
    truth = torch.zeros(len(captions), len(words))
    for row, caption in zip(truth, captions, strict=True):
        row[[index[w] for w in set(_words(caption)) if w in index]] = 1
    return truth


def _words(caption: str) -> list[str]:
    return [w for w in re.findall(r"[a-z]+", caption.lower()) if w not in STOP]
