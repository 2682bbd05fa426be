"""Where in the image a label's words are seen: attention maps beside the untouched attention of the denoiser."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from datasetdm.backbones.words import Words
from datasetdm.errors import BackboneError


# ---------------------------------------------------------------------- cross-attention
def label_attention(attn: Any, x: Float[Tensor, "b n c"], words: Words) -> Float[Tensor, "b l n"]:
    """Attention of every position to each label's own words, averaged over heads.

    Every label is attended to as a prompt of its own: the softmax runs over that label's used tokens, so its rows sum to
    one and the fraction of the words is a probability. `attn` is a diffusers cross-attention that was given `x`.
    """
    q = attn.to_q(x).unflatten(-1, (attn.heads, -1)).float()
    k = attn.to_k(words.tokens).unflatten(-1, (attn.heads, -1)).float()
    shares = []
    for keys, used, own in zip(k.split(8), words.used.split(8), words.own.split(8), strict=True):  # bounds the memory
        scores = torch.einsum("bnhd,lkhd->blhnk", q, keys) * attn.scale
        p = scores.masked_fill(~used[None, :, None, None], float("-inf")).softmax(-1)
        shares.append((p * own[None, :, None, None]).sum(-1).mean(2))
    return torch.cat(shares, 1)


# ---------------------------------------------------------------------- joint attention
class LabelsBeside(TorchFunctionMode):
    """Carries label tokens through a denoiser of joint attention beside the image, which does not see them.

    The text that the denoiser is given is `[caption, label tokens]`. Image and caption attend to each other exactly as
    they would without labels; a label's tokens attend to the image and to their own label's tokens only, so that no
    label depends on another (Helbling et al. 2025, arXiv 2502.04320, let concepts attend this way). Wherever the model
    calls `scaled_dot_product_attention` on the joint sequence, the map of image queries on the label's keys is cut
    out: `maps[i]` f[b l n] for the i-th such call, of those in `wanted`.

    Args:
        image, caption: number of tokens. image_first: order of the joint sequence, else the text comes first.
    """

    def __init__(self, image: int, caption: int, words: Words, *, image_first: bool, wanted: Collection[int]):
        super().__init__()
        self.group = words.used.nonzero()[:, 0]
        self.own = words.own[words.used]
        self.tokens = words.tokens[words.used]
        self.maps: dict[int, Tensor] = {}
        self._calls, self._wanted, self._n = 0, wanted, image
        total = image + caption + len(self.group)
        lead = image if image_first else 0
        self._labels = torch.arange(lead + caption, lead + caption + len(self.group))
        self._image = torch.arange(image) + (0 if image_first else total - image)
        keep = torch.ones(total, dtype=torch.bool)
        keep[self._labels] = False
        self._main, self._total = keep.nonzero()[:, 0], total
        same = self.group[:, None] == self.group[None]
        self._mask = torch.cat([same.new_ones(len(same), image), same], 1)

    def __exit__(self, exc_type: Any, exc_val: BaseException | None, exc_tb: Any) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)
        if exc_val is None and set(self._wanted) - self.maps.keys():
            raise BackboneError(
                f"no attention map arrived from joint attention {sorted(set(self._wanted) - self.maps.keys())}",
                expected=f"calls of scaled_dot_product_attention over {self._total} tokens",
                remedy="use diffusers' native attention backend (unset DIFFUSERS_ATTN_BACKEND)",
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        q, k, v = given["query"], given["key"], given["value"]
        if q.shape[2] != self._total or k.shape[2] != self._total:
            return func(*args, **kwargs)
        if given.get("attn_mask") is not None or len(args) > 4:
            raise BackboneError("joint attention with a mask", expected="none", remedy="please report the pipeline")
        return self._attend(q, k, v, given.get("scale"))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
        main, labels, image = (i.to(q.device) for i in (self._main, self._labels, self._image))
        out = torch.empty_like(q)
        out[:, :, main] = F.scaled_dot_product_attention(q[:, :, main], k[:, :, main], v[:, :, main], scale=scale)
        seen = torch.cat([image, labels])
        mask = self._mask.to(q.device)
        out[:, :, labels] = F.scaled_dot_product_attention(
            q[:, :, labels], k[:, :, seen], v[:, :, seen], mask, scale=scale
        )
        if self._calls in self._wanted:
            scale = q.shape[-1] ** -0.5 if scale is None else scale
            self.maps[self._calls] = joint_shares(
                q[:, :, image] * scale, k[:, :, image], k[:, :, labels], self.group, self.own
            )
        self._calls += 1
        return out


def joint_shares(
    q: Float[Tensor, "b h n d"],
    image: Float[Tensor, "b h n d"],
    words: Float[Tensor, "b h m d"],
    group: Int[Tensor, "m"],
    own: Bool[Tensor, "m"],
) -> Float[Tensor, "b l n"]:
    """Fraction of every position's joint attention that goes to each label's own words, averaged over heads.

    Every label's rows are those of a joint softmax over the image's keys and that label's tokens (`group` says whose a
    token is). `q` is scaled. One head at a time: n x n scores of all heads would not fit.
    """
    onehot = F.one_hot(group).float()
    total = torch.zeros(1, device=q.device)
    for head in range(q.shape[1]):
        x = q[:, head].float()
        to_image = torch.logsumexp(x @ image[:, head].float().mT, -1, keepdim=True)
        to_words = x @ words[:, head].float().mT
        e = (to_words - to_image).clamp(max=60).exp()
        total = total + (e * own) @ onehot / (1 + e @ onehot)
    return (total / q.shape[1]).mT
