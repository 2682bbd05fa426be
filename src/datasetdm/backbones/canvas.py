"""Images of any size and aspect on a backbone's square canvas, and labels back at the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped, UInt8
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
        scaled = x if self.inner == self.size else F.interpolate(x, self.inner, mode="bilinear", antialias=True)
        return self._pad(scaled, "replicate")

    def map(self, values: Shaped[Tensor, "*c h w"], fill: float) -> Shaped[Tensor, "*c H W"]:
        """Label maps on the same canvas: nearest neighbour, `fill` in the margin; integers below 2^24 stay exact."""
        x = self._pad(nearest(values, self.inner).float(), "constant", fill)
        return x.to(values.dtype)

    def undo(self, x: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c h w"]:
        """Predictions on the canvas back at the image's own size, bilinear."""
        x = x[..., : self.inner[0], : self.inner[1]]
        return x if self.inner == self.size else F.interpolate(x, self.size, mode="bilinear", align_corners=False)

    def _pad(self, x: Tensor, mode: str, value: float = 0.0) -> Tensor:
        margin = (0, self.canvas[1] - self.inner[1], 0, self.canvas[0] - self.inner[0])
        return x if not any(margin) else F.pad(x, margin, mode, value if mode == "constant" else None)


def nearest(x: Shaped[Tensor, "*c h w"], size: Sequence[int]) -> Shaped[Tensor, "*c H W"]:
    """Maps of any type at another (height, width), by nearest neighbour; integers below 2^24 stay exact."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if not x.numel():  # the masks of no object
        return x.new_zeros((*x.shape[:-2], *size))
    flat = x.reshape(1, -1, *x.shape[-2:]).float()
    return F.interpolate(flat, tuple(size), mode="nearest-exact").reshape(*x.shape[:-2], *size).to(x.dtype)


def to_uint8(images: Float[Tensor, "b 3 H W"]) -> list[UInt8[ndarray, "H W 3"]]:
    """Tensors 0..1 as images."""
    return list((images.float() * 255).round().clamp(0, 255).byte().movedim(1, -1).cpu().numpy())


def stack_images(images: Sequence[ndarray], places: Sequence[Placement]) -> Float[Tensor, "b 3 H W"]:
    """Images of any size as one batch."""
    return torch.cat([p.image(i) for p, i in zip(places, images, strict=True)])
