"""Models of keypoints as teachers."""

from __future__ import annotations

from pathlib import Path

from datasetdm.downstream.files import TrainedModel
from datasetdm.quality.seen import Seen
from datasetdm.records import Sample


class PoseTeacher:
    """A folder of ViTPose, published or written by `datasetdm train --student vitpose`: the keypoints of the sample's own objects,
    each cropped out by its box. A published one knows persons.

    Raises:
        ConfigError: another architecture than ViTPose.
    """

    def __init__(self, folder: Path, kind: str, device: str = "auto"):
        self._model = TrainedModel.load(folder, device)
        self.labels = self._model.student.labels

    def look(self, sample: Sample) -> Seen:
        """One pass of the model for all objects."""
        ((_, found),) = self._model.annotate([sample])
        return Seen(keypoints=found.keypoints)
