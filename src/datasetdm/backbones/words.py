"""Labels as the text encoders read them: which tokens are a label's own words, and what they mean."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from datasetdm.errors import ConfigError

SENTENCE = "a photo of a {}"
"""What a label's words are read in (Radford et al. 2021 found it to help CLIP)."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the conditioning sequence that one text encoder wrote, from position `start` on."""

    tokenizer: Any
    encoder: Any
    start: int = 0


@dataclass(frozen=True)
class Words:
    """Each label in a sentence of its own, so that no label depends on which others are asked for.

    tokens: conditioning vectors of its sentence. used: which are tokens, not padding. own: which are its own words.
    text: what it means: its words as each text encoder takes them in (apart from each other) and as it gives them out (in
    context), each to unit spread. (A bare word is no sentence: the mini encoder gives out the same vector for cow, chair
    and person.)
    """

    tokens: Float[Tensor, "l n d"]
    used: Bool[Tensor, "l n"]
    own: Bool[Tensor, "l n"]
    text: Float[Tensor, "l e"]

    def with_tokens(self, tokens: Float[Tensor, "l n d2"]) -> Words:
        """The same words behind a projection."""
        return replace(self, tokens=tokens)


def read_words(labels: Sequence[str], context: Float[Tensor, "l s d"], segments: Sequence[Segment]) -> Words:
    """`context`: the conditioning of `SENTENCE.format(label)` for every label."""
    shape, device = context.shape[:2], context.device
    used, own = (torch.zeros(shape, dtype=torch.bool, device=device) for _ in range(2))
    texts = []
    for part in segments:
        means = []
        for row, label in enumerate(labels):
            ids, first, stop = _own_tokens(part.tokenizer, label)
            here = slice(part.start + first, part.start + stop)
            used[row, part.start : part.start + len(ids)] = own[row, here] = True
            means.append((_embed(part.encoder, ids[first:stop]).mean(0), context[row, here].float().mean(0)))
        texts += [F.layer_norm(m, m.shape[1:]) for m in (torch.stack(x).to(device) for x in zip(*means, strict=True))]
    order = (~used).int().argsort(dim=1, stable=True)[:, : int(used.sum(1).max())]
    tokens = context.gather(1, order[..., None].expand(-1, -1, context.shape[2]))
    return Words(tokens, used.gather(1, order), own.gather(1, order), torch.cat(texts, 1))


def kept_text(text: str, tokenizers: Sequence[tuple[Any, int]]) -> str:
    """The words from the beginning of a text that all text encoders read.

    Args:
        text: a prompt or a caption.
        tokenizers: of the text encoders, each with the number of tokens that its encoder reads, marks included.
    """
    for tokenizer, limit in tokenizers:
        ends = [m.end() for m in re.finditer(r"\w+|[^\w\s]", text)]

        def length(end: int, of: str = text, by: Any = tokenizer) -> int:
            return len(by(of[:end], verbose=False).input_ids)

        if len(ends) > limit or length(len(text)) > limit:
            fitting = bisect_right(ends[:limit], limit, key=length)
            text = text[: ends[fitting - 1]] if fitting else ""
    return text


class CutTexts:
    """Counts texts of which text encoders read only the first words.

    Args:
        kept_texts: of a backbone.
        what: what the texts are, for instance "prompts".
    """

    def __init__(self, kept_texts: Callable[[Sequence[str]], list[str]], what: str):
        self.kept_texts, self.what = kept_texts, what
        self.seen = self.cut = 0
        self.first = ""

    def add(self, text: str) -> None:
        """Count one."""
        self.seen += 1
        if (kept := self.kept_texts([text])[0]) != text:
            self.cut += 1
            self.first = self.first or f"{shorten(text, 80)!r} up to {kept[-40:]!r}"

    def notes(self) -> list[str]:
        """One line, if any was cut."""
        if not self.cut:
            return []
        return [
            f"{self.cut} of {self.seen} {self.what} are longer than the text encoders read; labels are taken from the words that "
            f"all of them read; the first: {self.first}"
        ]


def _own_tokens(tokenizer: Any, label: str) -> tuple[list[int], int, int]:
    """Token ids of the label's sentence, and from where to where they are its own words."""
    sentence = SENTENCE.format(label)
    ids = tokenizer(sentence, truncation=True).input_ids
    bare = tokenizer(sentence, add_special_tokens=False).input_ids
    template = len(tokenizer(SENTENCE.format("").strip(), add_special_tokens=False).input_ids)
    lead = next((i for i in range(3) if ids[i : i + 1] == bare[:1]), 0)
    after = tokenizer.num_special_tokens_to_add() - lead
    first, stop = lead + template, min(lead + len(bare), len(ids) - after)
    if stop <= first:
        raise ConfigError(f"label {label!r} has no words that the text encoder knows", expected="a word")
    return ids, first, stop


def _embed(encoder: Any, ids: Sequence[int]) -> Float[Tensor, "n d"]:
    table = encoder.get_input_embeddings()
    return table(torch.tensor(ids, device=table.weight.device)).float()
