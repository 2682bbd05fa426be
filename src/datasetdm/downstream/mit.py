"""Sizes of Mix Transformers, the encoders of SegFormer (Xie et al. 2021, arXiv 2105.15203) that GLPN has, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TINY_MIT: Mapping[str, Any] = {
    "hidden_sizes": (16, 32, 64, 128),
    "depths": (1, 1, 1, 1),
    "num_attention_heads": (1, 2, 4, 8),
    "drop_path_rate": 0.0,
}
"""For a CPU."""
MIT_SETTINGS = (
    "num_channels", "num_encoder_blocks", "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads",
    "mlp_ratios", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "layer_norm_eps",
)  # fmt: skip
"""What a configuration says of the encoder."""


def mit(*depths: int) -> dict[str, Any]:
    """The paper's from B1 on, by their layers per stage; B0 is the default of transformers."""
    return {"hidden_sizes": (64, 128, 320, 512), "num_attention_heads": (1, 2, 5, 8), "depths": depths}
