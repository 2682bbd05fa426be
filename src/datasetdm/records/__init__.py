"""The records that every part of the software exchanges. NumPy only, frozen, validated once when they are made."""

from datasetdm.records.labels import BACKGROUND, IGNORE, Labels, Skeleton
from datasetdm.records.maps import DepthMap, SemanticMap
from datasetdm.records.objects import Instances, Keypoints, MaskStack
from datasetdm.records.sample import (
    ANNOTATIONS,
    PROMPTED,
    AnnotationName,
    Annotations,
    Origin,
    Prompt,
    Provenance,
    Quality,
    Sample,
)

Annotation = SemanticMap | Instances | DepthMap | Keypoints

__all__ = [
    "ANNOTATIONS", "BACKGROUND", "IGNORE", "PROMPTED", "Annotation", "AnnotationName", "Annotations", "DepthMap",
    "Instances", "Keypoints", "Labels", "MaskStack", "Origin", "Prompt", "Provenance", "Quality", "Sample", "SemanticMap",
    "Skeleton",
]  # fmt: skip
