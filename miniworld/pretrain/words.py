"""Words predicted from images: a caption's words from the UNet's own features where it is given no caption.

A small denoiser reads in the caption what there is, and its features need not know it. So a part of every batch has
hardly any noise and no caption, and a thin reader compares the features at every position with the words' embeddings;
which words the caption holds is asked of the image as a whole, for captions say what and not where. Multiple-instance
learning pools in this way (Pinheiro & Collobert 2015, arXiv 1411.6228); that such features help a denoiser, too, was
found by REPA (Yu et al. 2024, arXiv 2410.06940), which takes them from a pretrained encoder.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

RARE, COMMON = 0.005, 0.6
"""Fractions of the captions between which a word says something."""
QUIET = 200
"""Noise levels that leave an image to be seen: those below."""


def vocabulary(captions: Sequence[str]) -> list[str]:
    """The words in more than a few and less than most captions, in alphabetical order."""
    counts = Counter(word for caption in captions for word in _words(caption))
    return sorted(word for word, count in counts.items() if RARE <= count / len(captions) <= COMMON)


def said(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """Which caption holds which word: f[captions words], 0 or 1."""
    own = [_words(caption) for caption in captions]
    return torch.tensor([[float(word in some) for word in words] for some in own])


class WordReader(nn.Module):
    """Linear maps from the UNet's features (the last attention of every decoder block) to word embeddings.

    It looks at what the UNet computed last.
    """

    def __init__(self, unet: UNet2DConditionModel, tokenizer: CLIPTokenizer, words: Sequence[str], width: int):
        super().__init__()
        pieces = [tokenizer(word, add_special_tokens=False).input_ids for word in words]
        shares = torch.zeros(len(words), len(tokenizer))
        for row, ids in zip(shares, pieces, strict=True):
            row[ids] = 1 / len(ids)
        self.shares: Tensor
        self.register_buffer("shares", shares, persistent=False)
        self.seen: dict[int, Tensor] = {}
        blocks: Any = unet.up_blocks
        widths = [block.attentions[-1].config.in_channels for block in blocks]
        for i, block in enumerate(blocks):
            block.attentions[-1].register_forward_hook(self._keep(i))
        self.looks = nn.ModuleList(nn.Sequential(nn.GroupNorm(8, w), nn.Conv2d(w, width, 1)) for w in widths)
        self.rarity = nn.ModuleList(nn.Linear(width, 1) for _ in widths)

    def forward(self, seen: Sequence[Tensor], text: CLIPTextModel) -> Tensor:
        """Feature maps f[b c h w], coarse to fine -> logits f[maps b words]."""
        embeddings: Any = text.get_input_embeddings().weight
        meaning = F.normalize(self.shares @ embeddings, dim=1)
        logits = []
        for x, look, rarity in zip(seen, self.looks, self.rarity, strict=True):
            found = torch.einsum("bchw,kc->bkhw", look(x.float()), 4 * meaning).flatten(2)
            found = found + rarity(meaning) - 6
            logits.append(torch.logsumexp(found, -1) - math.log(found.shape[-1]))
        return torch.stack(logits)

    def losses(self, text: CLIPTextModel, rows: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(for the UNet, for the reader itself): cross-entropy, an image's sum over words, of these rows of the batch.

        rows: bool[batch]. truth: f[rows words].
        """
        seen = [self.seen[i][rows] for i in sorted(self.seen)]
        both = (seen, [x.detach() for x in seen])
        mine, own = (F.binary_cross_entropy_with_logits(z, truth.expand_as(z)) for z in (self(s, text) for s in both))
        return mine * truth.shape[1], own * truth.shape[1]

    def _keep(self, i: int) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            self.seen[i] = output[0] if isinstance(output, tuple) else output.sample

        return hook


def _words(caption: str) -> set[str]:
    return set(re.findall(r"[a-z]+", caption.lower()))
