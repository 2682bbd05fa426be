"""Figures over annotations, accumulated image by image: one file per task."""

from datasetdm.metrics.depth import DepthMeter
from datasetdm.metrics.instance import InstanceMeter
from datasetdm.metrics.keypoints import COCO_SIGMAS, SIGMA, KeypointMeter, oks_sigmas
from datasetdm.metrics.meter import Meter
from datasetdm.metrics.panoptic import PanopticMeter, panoptic
from datasetdm.metrics.semantic import SemanticMeter

__all__ = [
    "COCO_SIGMAS", "SIGMA", "DepthMeter", "InstanceMeter", "KeypointMeter", "Meter", "PanopticMeter", "SemanticMeter",
    "oks_sigmas", "panoptic",
]  # fmt: skip
