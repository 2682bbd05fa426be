"""What building the surroundings gives besides meshes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..lights import Lamp


@dataclass
class Backdrop:
    """The light around a scene and the air in it."""

    environment: np.ndarray  # (h, 2h, 3) linear RGB
    lamps: list[Lamp]
    fog_density: float = 0.0
    """Extinction a metre."""
