"""Label queries: what each label looks like in this picture, from its words, from where its words attend, and from
whether the picture's caption names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FITTED, NAMED, FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, Standardise, merge, module_key, tokenise

UNSEEN = 0.25
"""How far the words of labels count that were not in the fit: what little they share with known ones."""

HEARD = 1.5
"""How loud captions are after the fit, which knows its own pictures too well to listen to theirs as it should."""


class QueryLayer(nn.Module):
    """Queries read the picture, then each other (pre-norm)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.cross = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.mutual = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, q: Float[Tensor, "b l c"], memory: Float[Tensor, "b n c"]) -> Float[Tensor, "b l c"]:
        x = self.norms[0](q)
        q = q + self.cross(x, memory, memory, need_weights=False)[0]
        x = self.norms[1](q)
        q = q + self.mutual(x, x, x, need_weights=False)[0]
        return q + self.mlp(self.norms[2](q))


class LabelDecoder(nn.Module):
    """One query a label -> a mask logit for every label and pixel. No weight belongs to a label, so any label works.

    The logit is summed over strides: the query's dot product with the pixel embedding, plus a small function, shared by
    all labels, of the label's attention maps.

    unsaid, undrawn: shares of the labels that, while it learns, count as not named though they are, and the reverse.
    uncaptioned: share of the pictures whose caption is not told. wordless: share of the labels whose words are not told:
    what is left (where they attend, whether the caption names them, which labels the others are) is all there is to go by
    for a label that no fit has seen.
    """

    def __init__(
        self,
        widths: Mapping[int, int],
        specs: Sequence[FeatureSpec],
        text_width: int,
        *,
        layers: int = 2,
        dropout: float = 0.1,
        unsaid: float = 0.1,
        undrawn: float = 0.04,
        uncaptioned: float = 0.1,
        wordless: float = 0.2,
    ):
        super().__init__()
        self.unsaid, self.undrawn, self.uncaptioned, self.wordless = unsaid, undrawn, uncaptioned, wordless
        width = max(widths.values())
        self.memory_strides = [s for s, w in widths.items() if w == width]
        specs = [s for s in specs if s.kind == "attention" and s.stride in widths]
        self.attention = {
            k: [s.name for s in specs if s.stride == k] for k in widths if any(s.stride == k for s in specs)
        }
        self.norms = nn.ModuleDict({module_key(s.name): Standardise(s.channels) for s in specs})
        self.evidence = nn.ModuleDict()
        for stride in self.attention:
            channels = sum(s.channels for s in specs if s.stride == stride)
            self.evidence[str(stride)] = nn.Sequential(nn.Linear(channels, 16), nn.GELU(), nn.Linear(16, 1))
        self.words = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.looks = nn.Linear(width, width)
        self.named = nn.Linear(1, width, bias=False)
        self.layers = nn.ModuleList(QueryLayer(width, 4, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.keys = nn.ModuleDict({str(s): nn.Linear(width, w + 1) for s, w in widths.items()})

    def forward(
        self, pyramid: Pyramid, maps: Mapping[str, Tensor], text: Float[Tensor, "l d"]
    ) -> Float[Tensor, "b l H W"]:
        shared = {k: torch.cat([self.norms[module_key(n)](maps[n]) for n in ns], 2) for k, ns in self.attention.items()}
        memory = tokenise([pyramid[s] for s in self.memory_strides])
        q = self._meant(text, maps, len(memory)) + self._pool(pyramid, shared)
        if NAMED in maps:
            q = q + self.named(self._doubted(maps[NAMED].float())[..., None])
        for layer in self.layers:
            q = layer(q, memory)
        q = self.norm(q)
        logits = {}
        for stride, x in pyramid.items():
            key = self.keys[str(stride)](q)
            logits[stride] = torch.einsum("blc,bchw->blhw", key[..., 1:] * x.shape[1] ** -0.5, x) + key[..., :1, None]
            if stride in shared:
                evidence = self.evidence[str(stride)](shared[stride].movedim(2, -1)).squeeze(-1)
                logits[stride] = logits[stride] + evidence
        return merge(logits)

    def _meant(self, text: Float[Tensor, "l d"], maps: Mapping[str, Tensor], pictures: int) -> Float[Tensor, "b l c"]:
        """What the labels' words say. While it learns, some labels are known by their circumstances only; afterwards the words
        of labels that no fit has seen count for a part."""
        words = self.words(text.float()).expand(pictures, -1, -1)
        if self.training:
            return words * (torch.rand_like(words[..., :1]) >= self.wordless)
        return words * (UNSEEN + (1 - UNSEEN) * maps[FITTED][..., None]) if FITTED in maps else words

    def _doubted(self, named: Float[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """While it learns, captions are sometimes wrong: generators leave things out and draw what nobody asked for."""
        if not self.training:
            return HEARD * named
        chance = torch.rand_like(named)
        wrong = torch.where(named > 0, chance < self.unsaid, chance < self.undrawn)
        blind = torch.rand_like(named[:, :1]) < self.uncaptioned
        return torch.where(wrong, -named, named).masked_fill(blind, 0)

    def _pool(self, pyramid: Pyramid, shared: Mapping[int, Tensor]) -> Float[Tensor, "b l c"]:
        """Mean embedding under each label's attention."""
        pooled = []
        for stride in self.memory_strides:
            if stride in shared:
                weight = shared[stride].mean(2).flatten(2).mul(2).softmax(-1)
                pooled.append(
                    torch.einsum("bln,bcn->blc", weight.to(pyramid[stride].dtype), pyramid[stride].flatten(2))
                )
        if not pooled:  # the same for every label
            return self.looks.bias.expand(len(pyramid[self.memory_strides[0]]), 1, -1)
        return self.looks(torch.stack(pooled).mean(0))


def upsample(x: Float[Tensor, "b c h w"], size: Sequence[int]) -> Float[Tensor, "b c H W"]:
    """Bilinear to (height, width)."""
    return (
        x
        if tuple(x.shape[-2:]) == tuple(size)
        else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    )
