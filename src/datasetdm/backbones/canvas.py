"""Images of any size and aspect on a backbone's square canvas, and labels back at the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Placement:
    """Where an image of `size` (height, width) lies on a `canvas`: scaled to `inner`, at the top left corner."""

    size: tuple[int, int]
    inner: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def fit(cls, size: tuple[int, int], canvas: tuple[int, int]) -> Placement:
        """The largest placement that keeps the aspect."""
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        inner = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        return cls(size, inner, canvas)

    def image(self, image: UInt8[ndarray, "h w 3"]) -> Float[Tensor, "1 3 H W"]:
        """The image on its canvas, 0..1, its last row and column repeated into the margin."""
        x = torch.from_numpy(image.copy()).movedim(-1, 0)[None].float() / 255
        return self._pad(self._resize(x, "bilinear"), "replicate")

    def map(self, values: ndarray, blank: float) -> Float[Tensor, "1 1 H W"]:
        """A label map on the same canvas: nearest neighbour, `blank` in the margin."""
        x = torch.from_numpy(values.copy()).float()[None, None]
        return self._pad(self._resize(x, "nearest-exact"), "constant", blank)

    def undo(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c h w"]:
        """Predictions on the canvas back at the image's own size, bilinear."""
        x = x[..., : self.inner[0], : self.inner[1]]
        return x if self.inner == self.size else F.interpolate(x, self.size, mode="bilinear", align_corners=False)

    def _resize(self, x: Tensor, mode: str) -> Tensor:
        smooth = mode == "bilinear"
        return x if self.inner == self.size else F.interpolate(x, self.inner, mode=mode, antialias=smooth)

    def _pad(self, x: Tensor, mode: str, value: float = 0.0) -> Tensor:
        margin = (0, self.canvas[1] - self.inner[1], 0, self.canvas[0] - self.inner[0])
        return x if not any(margin) else F.pad(x, margin, mode, value if mode == "constant" else None)


def to_uint8(images: Float[Tensor, "b 3 H W"]) -> list[UInt8[ndarray, "H W 3"]]:
    """Tensors 0..1 as images."""
    return list((images.float() * 255).round().clamp(0, 255).byte().movedim(1, -1).cpu().numpy())


def stack_images(images: Sequence[ndarray], places: Sequence[Placement]) -> Float[Tensor, "b 3 H W"]:
    """Images of any size as one batch."""
    return torch.cat([p.image(i) for p, i in zip(places, images, strict=True)])
