"""Teachers: models of the user's that say what they see in an image, to compare annotations with.

Two kinds of files are read: folders of `transformers` (semantic segmentation, universal segmentation, object detection), and
ONNX files of semantic segmentation, which run without torch.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from PIL import Image

from datasetdm.errors import ConfigError
from datasetdm.records import Labels

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet: what an ONNX file without an image processor beside it gets."""
SIDE = 512
"""Side of its images in pixels where the file does not say."""
LEAST_SCORE = 0.5
"""Objects of a lower score are not seen."""
KINDS = ("ForSemanticSegmentation", "ForUniversalSegmentation", "ForObjectDetection")
"""Ends of the names of the architectures that can be teachers."""


@dataclass(frozen=True)
class Boxes:
    """Objects as boxes (x, y, width, height) in pixels, with their labels."""

    xywh: Float64[np.ndarray, "n 4"]
    label_ids: Int64[np.ndarray, "n"]


@dataclass(frozen=True)
class Seen:
    """What a teacher sees in one image; None is what it does not look for.

    Args:
        probabilities: of every label at every pixel; their sum is at most 1.
        boxes: the objects.
    """

    probabilities: Float32[np.ndarray, "l h w"] | None = None
    boxes: Boxes | None = None


@runtime_checkable
class Teacher(Protocol):
    """A model that says what it sees."""

    @property
    def labels(self) -> Labels:
        """What it can see."""
        ...

    def look(self, image: UInt8[np.ndarray, "h w 3"]) -> Seen:
        """What it sees in an image, at the image's own size."""
        ...


def load_teacher(path: str, device: str = "auto") -> Teacher:
    """The model in a folder of transformers, or in an ONNX file. Raises ConfigError if there is none that can be a teacher."""
    place = Path(path)
    if place.suffix == ".onnx" and place.is_file():
        return OnnxTeacher(place)
    if (place / CONFIG).is_file():
        return TransformersTeacher(place, device)
    raise ConfigError(
        "there is no teacher", where=path, expected=f"a folder of transformers with {CONFIG}, or an ONNX file (.onnx)"
    )


class TransformersTeacher:
    """A folder of transformers; what `datasetdm train --student segformer` or `mask2former` writes is one.

    Raises:
        ConfigError: a folder that cannot be read, or another architecture than one of `KINDS`.
    """

    def __init__(self, folder: Path, device: str = "auto"):
        import transformers

        from datasetdm.backbones import pick_device
        from datasetdm.backbones.quiet import quiet

        config = _read_json(folder / CONFIG)
        name = next(iter(config.get("architectures") or ()), "")
        self.kind = next((k for k in KINDS if name.endswith(k)), "")
        if not self.kind:
            raise ConfigError(
                f"{name or 'an unnamed architecture'} is no teacher",
                where=folder,
                expected=", ".join(f"...{k}" for k in KINDS),
            )
        try:
            model: Any = getattr(transformers, f"AutoModel{self.kind}")
            self.model: Any = quiet(lambda: model.from_pretrained(folder)).eval().to(pick_device(device))
            self.processor: Any = quiet(lambda: transformers.AutoImageProcessor.from_pretrained(folder))
        except (OSError, ValueError, ImportError) as e:
            what = str(e).strip().splitlines()[0]
            raise ConfigError(f"the teacher cannot be loaded: {what}", where=folder, expected="a whole folder") from e
        self.labels = _labels([self.model.config.id2label[i] for i in sorted(self.model.config.id2label)], folder)

    def look(self, image: UInt8[np.ndarray, "h w 3"]) -> Seen:
        """One pass of the model."""
        import torch

        inputs = self.processor(images=[image], return_tensors="pt").to(self.model.device)
        with torch.no_grad():
            found = self.model(**inputs)
        if self.kind == "ForObjectDetection":
            sizes = torch.tensor([image.shape[:2]])
            (own,) = self.processor.post_process_object_detection(found, LEAST_SCORE, sizes)
            corners = own["boxes"].cpu().double().numpy().reshape(-1, 4)
            xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
            return Seen(boxes=Boxes(xywh, own["labels"].cpu().long().numpy()))
        if self.kind == "ForUniversalSegmentation":
            labels, masks = found.class_queries_logits.softmax(-1)[..., :-1], found.masks_queries_logits.sigmoid()
            maps = torch.einsum("bql,bqhw->blhw", labels.float(), masks.float())
            maps = maps / maps.sum(1, keepdim=True).clamp_min(1)
        else:
            maps = found.logits.float()
        full = torch.nn.functional.interpolate(maps, image.shape[:2], mode="bilinear", align_corners=False)[0]
        return Seen((full if self.kind == "ForUniversalSegmentation" else full.softmax(0)).cpu().numpy())


class OnnxTeacher:
    """An ONNX file of semantic segmentation: images f32[b 3 h w] in, logits f32[b l h' w'] as the first output.

    The labels' names are `id2label` of a `config.json` beside it, or the file's own metadata `names` (a list, or a mapping of
    numbers). A `preprocessor_config.json` beside it says how images enter; without one they are scaled to the file's size and
    normalised with ImageNet's mean and deviation. `datasetdm train --onnx` writes all three.

    Raises:
        ConfigError: no onnxruntime, a file that it cannot read, no names, or other outputs.
    """

    def __init__(self, path: Path):
        if find_spec("onnxruntime") is None:
            raise ConfigError("an ONNX file needs the package onnxruntime", remedy="pip install 'datasetdm[onnx]'")
        import onnxruntime

        self.path = path
        try:
            self.session: Any = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
        except Exception as e:  # onnxruntime's own, which share no base
            what = str(e).strip().splitlines()[0][:200]
            raise ConfigError(f"the teacher cannot be loaded: {what}", where=path, expected="an ONNX file") from e
        self.labels = _labels(self._names(), path)
        self.input = self.session.get_inputs()[0]
        shape = self.session.get_outputs()[0].shape
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != len(self.labels)):
            raise ConfigError(
                f"the first output has shape {shape}",
                where=path,
                expected=f"logits of {len(self.labels)} labels: [images, {len(self.labels)}, height, width]",
            )

    def _names(self) -> Sequence[str]:
        beside = _read_json(self.path.with_name(CONFIG)) if self.path.with_name(CONFIG).exists() else {}
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

    def _pixels(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "1 3 H W"]:
        if self._processor is not None:
            return self._processor(images=[image], return_tensors="np")["pixel_values"].astype(np.float32)
        h, w = (side if isinstance(side, int) else SIDE for side in self.input.shape[2:])
        scaled = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR), np.float32) / 255
        return ((scaled - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]

    def look(self, image: UInt8[np.ndarray, "h w 3"]) -> Seen:
        """One pass of the model."""
        logits = self.session.run(None, {self.input.name: self._pixels(image)})[0][0].astype(np.float32)
        h, w = image.shape[:2]
        maps = np.stack([np.asarray(Image.fromarray(m).resize((w, h), Image.Resampling.BILINEAR)) for m in logits])
        weights = np.exp(maps - maps.max(0))
        return Seen((weights / weights.sum(0)).astype(np.float32))


def _labels(names: Sequence[str], where: Path) -> Labels:
    """Raises ConfigError for names that are there twice."""
    if len({n.lower() for n in names}) < len(names):
        raise ConfigError("two labels of the teacher have one name", where=where, expected="different names")
    return Labels(tuple(names))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as e:
        raise ConfigError(f"the file cannot be read: {e}", where=path, expected="JSON of transformers") from e
