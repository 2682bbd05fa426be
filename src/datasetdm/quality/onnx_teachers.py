"""ONNX files that can be teachers, run by onnxruntime without torch: semantic segmentation and object detection.

Images f32[b 3 h w] go in. What comes out says what the file is:

- `[b l h' w']`, the first output: logits of labels at pixels;
- `[b n 6]`, the only output: objects as (left, top, right, bottom, score, label) in pixels of the input, as Ultralytics
  exports with `nms=True`, and its models that need no non-maximum suppression;
- `logits` `[b n l]` and `pred_boxes` `[b n 4]`: objects as `transformers` defines them for DETR and its relatives, with boxes
  as (centre x, centre y, width, height) in fractions of the image. With l + 1 logits the last one stands for no object and
  they enter a softmax, else each enters a sigmoid.

The labels' names are `id2label` of a `config.json` beside the file, or the file's own metadata `names` (a list, or a mapping
of numbers). A `preprocessor_config.json` beside it says how images enter. Without one, images for `[b n 6]` are scaled into a
grey frame of the file's size with their aspect kept, values 0 to 1 (Ultralytics); those for the others are scaled to the
file's size and normalised with ImageNet's mean and deviation.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from datasetdm.errors import ConfigError
from datasetdm.quality.seen import LEAST_SCORE, Boxes, Seen, Teacher, labels_of, read_json
from datasetdm.records import Sample

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""
SIDE = 512
"""Side of the images in pixels where the file does not say."""
FRAME = 114
"""Grey of what lies beside a scaled image."""
LAYOUTS = "[images, labels, height, width], [images, objects, 6], or `logits` and `pred_boxes`"


def load_onnx(path: Path) -> Teacher:
    """The teacher in an ONNX file.

    Raises:
        ConfigError: no onnxruntime, a file that it cannot read, no names, or other outputs.
    """
    if find_spec("onnxruntime") is None:
        raise ConfigError("an ONNX file needs the package onnxruntime", remedy="pip install 'datasetdm[onnx]'")
    import onnxruntime

    try:
        session: Any = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as e:  # onnxruntime's own, which share no base
        what = str(e).strip().splitlines()[0][:200]
        raise ConfigError(f"the teacher cannot be loaded: {what}", where=path, expected="an ONNX file") from e
    shapes = {o.name: o.shape for o in session.get_outputs()}
    first = next(iter(shapes.values()))
    if {"logits", "pred_boxes"} <= {*shapes}:
        return DetrTeacher(path, session)
    if len(first) == 4:
        return MapTeacher(path, session)
    if len(shapes) == 1 and len(first) == 3 and first[2] == 6:
        return BoxTeacher(path, session)
    remedy = "of Ultralytics: export with nms=True"
    raise ConfigError(f"the outputs have shapes {shapes}", where=path, expected=LAYOUTS, remedy=remedy)


class OnnxTeacher(ABC):
    """An ONNX file of any kind.

    Args:
        path: the file. session: of onnxruntime.

    Raises:
        ConfigError: labels without names, or with those of others.
    """

    def __init__(self, path: Path, session: Any):
        self.path, self.session = path, session
        self.labels = labels_of(self._names(), path)
        self.input = session.get_inputs()[0]

    def _names(self) -> Sequence[str]:
        beside = read_json(self.path.with_name(CONFIG)) if self.path.with_name(CONFIG).exists() else {}
        if named := beside.get("id2label"):
            return [named[i] for i in sorted(named, key=int)]
        own = self.session.get_modelmeta().custom_metadata_map.get("names", "")
        try:
            value = ast.literal_eval(own) if own else ()
        except (ValueError, SyntaxError):
            value = ()
        names = [value[i] for i in sorted(value)] if isinstance(value, dict) else list(value)
        if not names:
            raise ConfigError(
                "the teacher's labels have no names",
                where=self.path,
                expected=f"`id2label` in a {CONFIG} beside it, or metadata `names` in the file",
            )
        return [str(n) for n in names]

    @cached_property
    def _processor(self) -> Any:
        if not self.path.with_name(PROCESSOR).exists():
            return None
        from transformers import AutoImageProcessor

        from datasetdm.backbones.quiet import quiet

        return quiet(lambda: AutoImageProcessor.from_pretrained(self.path.parent))

    @property
    def _side(self) -> tuple[int, int]:
        """(height, width) of the images that the file wants."""
        h, w = (side if isinstance(side, int) else SIDE for side in self.input.shape[2:])
        return h, w

    def _run(self, image: UInt8[np.ndarray, "h w 3"]) -> tuple[Float32[np.ndarray, "1 3 H W"], dict[str, np.ndarray]]:
        """What enters, and the outputs for this image by name."""
        if self._processor is None:
            pixels = self._scaled(image)
        else:
            pixels = self._processor(images=[image], return_tensors="np")["pixel_values"].astype(np.float32)
        names = [o.name for o in self.session.get_outputs()]
        found = self.session.run(None, {self.input.name: pixels})
        return pixels, {n: x[0].astype(np.float32) for n, x in zip(names, found, strict=True)}

    def _scaled(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "1 3 H W"]:
        scaled = _resized(image, self._side).astype(np.float32) / 255
        return ((scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]

    @abstractmethod
    def look(self, sample: Sample) -> Seen:
        """One pass of the model."""


class MapTeacher(OnnxTeacher):
    """Semantic segmentation; `datasetdm train --onnx` writes such files."""

    def __init__(self, path: Path, session: Any):
        super().__init__(path, session)
        shape = session.get_outputs()[0].shape
        if isinstance(shape[1], int) and shape[1] != len(self.labels):
            raise ConfigError(
                f"the first output has shape {shape}",
                where=path,
                expected=f"logits of {len(self.labels)} labels: [images, {len(self.labels)}, height, width]",
            )

    def look(self, sample: Sample) -> Seen:
        """The probabilities of all labels."""
        logits = next(iter(self._run(sample.image)[1].values()))
        maps = np.stack([_resized(m, sample.size) for m in logits])
        weights = np.exp(maps - maps.max(0))
        return Seen((weights / weights.sum(0)).astype(np.float32))


class BoxTeacher(OnnxTeacher):
    """Objects as (left, top, right, bottom, score, label), in pixels of the input."""

    def look(self, sample: Sample) -> Seen:
        """Objects of a sufficient score."""
        pixels, outputs = self._run(sample.image)
        (rows,) = outputs.values()
        rows = rows[(rows[:, 4] >= LEAST_SCORE) & (rows[:, 5] < len(self.labels))]
        h, w = sample.size
        if self._processor is None:
            height, width, top, left = self._frame((h, w))
        else:
            (height, width), top, left = pixels.shape[2:], 0, 0
        corners = (rows[:, :4] - [left, top, left, top]) * [w / width, h / height, w / width, h / height]
        return Seen(boxes=Boxes.from_corners(corners.clip(0, [w, h, w, h]), rows[:, 5]))

    def _frame(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(height, width, top, left) of an image in the frame, which is in its middle."""
        scale = min(side / own for side, own in zip(self._side, size, strict=True))
        height, width = (max(1, round(scale * own)) for own in size)
        return height, width, (self._side[0] - height) // 2, (self._side[1] - width) // 2

    def _scaled(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "1 3 H W"]:
        height, width, top, left = self._frame((image.shape[0], image.shape[1]))
        frame = np.full((*self._side, 3), FRAME, np.uint8)
        frame[top : top + height, left : left + width] = _resized(image, (height, width))
        return (frame.astype(np.float32) / 255).transpose(2, 0, 1)[None]


class DetrTeacher(OnnxTeacher):
    """Objects as `logits` and `pred_boxes`."""

    def look(self, sample: Sample) -> Seen:
        """Objects of a sufficient score."""
        outputs = self._run(sample.image)[1]
        logits, boxes = outputs["logits"], outputs["pred_boxes"]
        if logits.shape[1] not in (len(self.labels), len(self.labels) + 1):
            raise ConfigError(
                f"the output `logits` is of {logits.shape[1]} labels", where=self.path, expected=f"{len(self.labels)}"
            )
        if logits.shape[1] > len(self.labels):
            weights = np.exp(logits - logits.max(1, keepdims=True))
            scores = (weights / weights.sum(1, keepdims=True))[:, :-1]
        else:
            scores = 1 / (1 + np.exp(-logits))
        sure = scores.max(1) >= LEAST_SCORE
        centre, half = boxes[sure, :2], boxes[sure, 2:] / 2
        h, w = sample.size
        corners = np.concatenate([centre - half, centre + half], 1) * [w, h, w, h]
        return Seen(boxes=Boxes.from_corners(corners.clip(0, [w, h, w, h]), scores[sure].argmax(1)))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image or a map f32[h w], scaled to (height, width)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
