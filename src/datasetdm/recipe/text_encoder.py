"""What a backbone's text encoder reads of labels and prompts: its tokenizers are enough, no weights are loaded."""

from __future__ import annotations

from typing import Any

from datasetdm.errors import ConfigError
from datasetdm.records import Labels

MOST_WORDS = 50
"""Words that CLIP's 77 tokens hold with some certainty."""


def default_fits(text: str) -> bool:
    """Whether text encoders of 77 tokens read a text to its end, by its words."""
    return len(text.split()) <= MOST_WORDS


class TextEncoder:
    """The tokenizers of a backbone; no weights are loaded."""

    def __init__(self, backbone: str):
        from transformers import AutoTokenizer

        from datasetdm.backbones.hub import resolve

        self.backbone = backbone
        folders = sorted(p for p in resolve(backbone).glob("tokenizer*") if p.is_dir())
        if not folders:
            raise ConfigError("the pipeline has no tokenizer", where=backbone, expected="a folder `tokenizer`")
        self.tokenizers: list[Any] = [AutoTokenizer.from_pretrained(p, local_files_only=True) for p in folders]

    def fits(self, text: str) -> bool:
        """Whether a text is read to its end."""
        return all(len(t(text).input_ids) <= t.model_max_length for t in self.tokenizers)

    def require_different(self, labels: Labels) -> None:
        """Raises ConfigError for a label that has the tokens of another, or none but unknown ones."""
        seen: dict[Any, str] = {}
        for name in labels.names:
            ids = tuple(tuple(t(name, truncation=True, add_special_tokens=False).input_ids) for t in self.tokenizers)
            bare = all(set(i) <= {t.unk_token_id} for i, t in zip(ids, self.tokenizers, strict=True))
            if bare or ids in seen:
                other = f"cannot tell it from {seen[ids]!r}" if ids in seen else "knows no word of it"
                raise ConfigError(
                    f"label {name!r}: the text encoder {other}", where=self.backbone,
                    expected="words that the text encoder knows and that differ from all other labels",
                    remedy="give the label another name, for instance in words instead of a code",
                )  # fmt: skip
            seen[ids] = name
