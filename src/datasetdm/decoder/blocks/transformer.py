"""Label queries: what each label looks like in this image, from its text embedding, from where its words attend, and from
whether the image's caption mentions it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from datasetdm.backbones.features import FeatureSpec
from datasetdm.decoder.blocks.pixel import Pyramid, Standardise, merge, module_key, tokenise
from datasetdm.decoder.inputs import DecoderInput

UNSEEN_WORD_WEIGHT = 0.25
"""Weight of text embeddings of labels outside the fitting vocabulary: only the part that they share with known labels helps."""

UNSEEN_WORD_LOGIT = 1.0
"""Added to the calibrated logit of labels that no fit saw, in images whose caption asks for them: a fit teaches that only its own
labels have pixels (calibrated stacking of Chao et al. 2016, arXiv 1605.04253; measured: docs/LOG.md, 2026-11-28, labels that
no fit saw)."""

CAPTION_GAIN = 1.5
"""Factor on the caption-mention embedding at inference. Above 1, because the decoder fits its own ~100 images almost perfectly
and therefore underuses captions during fitting (measured: docs/LOG.md, 2026-11-25)."""

ATTENTION_SHARPNESS = 2.0
"""Factor on standardised attention maps before the softmax that pools embeddings under them."""


class QueryLayer(nn.Module):
    """Queries attend to the image, then to each other (pre-norm)."""

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
    """One query per label -> a mask logit per label and pixel. Weights are shared by all labels, so unseen labels work.

    The logit is summed over strides: the query's dot product with the pixel embedding, plus a small function of the label's
    attention maps. While it learns, evidence is dropped at random.

    Args:
        drop_mention: probability that a mentioned label counts as not mentioned (generators leave things out).
        false_mention: probability that a label that is not mentioned counts as mentioned.
        drop_caption: probability per image that it has no caption labels.
        drop_text: probability per label that its text embedding is dropped. What is left (where its words attend, whether the
            caption mentions it, which labels the others are) is all that there is for a label that no fit has seen.
    """

    def __init__(
        self,
        widths: Mapping[int, int],
        specs: Sequence[FeatureSpec],
        text_width: int,
        *,
        layers: int = 2,
        dropout: float = 0.1,
        drop_mention: float = 0.1,
        false_mention: float = 0.04,
        drop_caption: float = 0.1,
        drop_text: float = 0.2,
    ):
        super().__init__()
        self.drop_mention, self.false_mention = drop_mention, false_mention
        self.drop_caption, self.drop_text = drop_caption, drop_text
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

    def forward(self, pyramid: Pyramid, inputs: DecoderInput) -> Float[Tensor, "b l H W"]:
        maps = inputs.maps
        attention = {
            k: torch.cat([self.norms[module_key(n)](maps[n]) for n in ns], 2) for k, ns in self.attention.items()
        }
        memory = tokenise([pyramid[s] for s in self.memory_strides])
        q = self.embed_text(inputs, len(memory)) + self._pool(pyramid, attention)
        if inputs.mentioned is not None:
            q = q + self.named(self.corrupt_mentions(inputs.mentioned.float())[..., None])
        for layer in self.layers:
            q = layer(q, memory)
        q = self.norm(q)
        logits = {}
        for stride, x in pyramid.items():
            key = self.keys[str(stride)](q)
            logits[stride] = torch.einsum("blc,bchw->blhw", key[..., 1:] * x.shape[1] ** -0.5, x) + key[..., :1, None]
            if stride in attention:
                evidence = self.evidence[str(stride)](attention[stride].movedim(2, -1)).squeeze(-1)
                logits[stride] = logits[stride] + evidence
        return merge(logits)

    def embed_text(self, inputs: DecoderInput, images: int) -> Float[Tensor, "b l c"]:
        """The labels' text embeddings; at inference those outside the fitting vocabulary count `UNSEEN_WORD_WEIGHT`."""
        words = self.words(inputs.text.float()).expand(images, -1, -1)
        if self.training:
            return words * (torch.rand_like(words[..., :1]) >= self.drop_text)
        if inputs.in_vocabulary is None:
            return words
        return words * (UNSEEN_WORD_WEIGHT + (1 - UNSEEN_WORD_WEIGHT) * inputs.in_vocabulary[:, None])

    def corrupt_mentions(self, mentioned: Float[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Wrong and missing mentions while it learns; at inference the mentions times `CAPTION_GAIN`."""
        if not self.training:
            return CAPTION_GAIN * mentioned
        chance = torch.rand_like(mentioned)
        wrong = torch.where(mentioned > 0, chance < self.drop_mention, chance < self.false_mention)
        blind = torch.rand_like(mentioned[:, :1]) < self.drop_caption
        return torch.where(wrong, -mentioned, mentioned).masked_fill(blind, 0)

    def _pool(self, pyramid: Pyramid, attention: Mapping[int, Tensor]) -> Float[Tensor, "b l c"]:
        """Mean embedding under each label's attention."""
        pooled = []
        for stride in self.memory_strides:
            if stride in attention:
                weight = attention[stride].mean(2).flatten(2).mul(ATTENTION_SHARPNESS).softmax(-1)
                pooled.append(
                    torch.einsum("bln,bcn->blc", weight.to(pyramid[stride].dtype), pyramid[stride].flatten(2))
                )
        if not pooled:  # no attention maps: the same for every label
            return self.looks.bias.expand(len(pyramid[self.memory_strides[0]]), 1, -1)
        return self.looks(torch.stack(pooled).mean(0))


def upsample(x: Float[Tensor, "b c h w"], size: Sequence[int]) -> Float[Tensor, "b c H W"]:
    """Bilinear to (height, width)."""
    return (
        x
        if tuple(x.shape[-2:]) == tuple(size)
        else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
    )
