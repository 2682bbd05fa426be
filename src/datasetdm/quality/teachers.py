"""Models of the user's that can be teachers: folders of `transformers`, and ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasetdm.errors import ConfigError
from datasetdm.io.registry import Registry
from datasetdm.quality.onnx_teachers import CONFIG, load_onnx
from datasetdm.quality.seen import LEAST_SCORE, Boxes, Seen, Teacher, labels_of, read_json
from datasetdm.records import Sample

_KINDS = ("ForSemanticSegmentation", "ForUniversalSegmentation", "ForObjectDetection")

TEACHERS: Registry[Callable[..., Teacher]] = Registry(
    "kind of teacher",
    None,
    {
        **{kind: "datasetdm.quality.teachers:TransformersTeacher" for kind in _KINDS},
        "ForPoseEstimation": "datasetdm.quality.pose:PoseTeacher",
    },
)
"""End of the name of an architecture of `transformers` -> its teacher: (folder, that end, device) -> Teacher."""


def load_teacher(path: str, device: str = "auto") -> Teacher:
    """The model in a folder of transformers, or in an ONNX file. Raises ConfigError if there is none that can be a teacher."""
    place = Path(path)
    if place.suffix == ".onnx" and place.is_file():
        return load_onnx(place)
    if not (place / CONFIG).is_file():
        raise ConfigError(
            "there is no teacher",
            where=path,
            expected=f"a folder of transformers with {CONFIG}, or an ONNX file (.onnx)",
        )
    name = next(iter(read_json(place / CONFIG).get("architectures") or ()), "")
    kind = next((k for k in TEACHERS if name.endswith(k)), None)
    if kind is None:
        expected = ", ".join(f"...{k}" for k in TEACHERS)
        raise ConfigError(f"{name or 'an unnamed architecture'} is no teacher", where=path, expected=expected)
    try:
        return TEACHERS.load(kind)(place, kind, device)
    except (OSError, ValueError, ImportError) as e:
        what = str(e).strip().splitlines()[0]
        raise ConfigError(f"the teacher cannot be loaded: {what}", where=path, expected="a whole folder") from e


class TransformersTeacher:
    """A folder of transformers; what `datasetdm train --student segformer` or `mask2former` writes is one.

    Args:
        kind: the end of its architecture's name, which says how its outputs are read.
    """

    def __init__(self, folder: Path, kind: str, device: str = "auto"):
        import transformers

        from datasetdm.backbones import pick_device
        from datasetdm.backbones.quiet import quiet

        self.kind = kind
        model: Any = getattr(transformers, f"AutoModel{kind}")
        self.model: Any = quiet(lambda: model.from_pretrained(folder)).eval().to(pick_device(device))
        self.processor: Any = quiet(lambda: transformers.AutoImageProcessor.from_pretrained(folder))
        names: Mapping[int, str] = self.model.config.id2label
        self.labels = labels_of([names[i] for i in sorted(names)], folder)

    def look(self, sample: Sample) -> Seen:
        """One pass of the model."""
        import torch

        inputs = self.processor(images=[sample.image], return_tensors="pt").to(self.model.device)
        with torch.no_grad():
            found = self.model(**inputs)
        if self.kind == "ForObjectDetection":
            sizes = torch.tensor([sample.size])
            (own,) = self.processor.post_process_object_detection(found, LEAST_SCORE, sizes)
            return Seen(boxes=Boxes.from_corners(own["boxes"].cpu().numpy(), own["labels"].cpu().numpy()))
        if self.kind == "ForUniversalSegmentation":
            labels, masks = found.class_queries_logits.softmax(-1)[..., :-1], found.masks_queries_logits.sigmoid()
            maps = torch.einsum("bql,bqhw->blhw", labels.float(), masks.float())
            maps = maps / maps.sum(1, keepdim=True).clamp_min(1)
        else:
            maps = found.logits.float()
        full = torch.nn.functional.interpolate(maps, sample.size, mode="bilinear", align_corners=False)[0]
        return Seen((full if self.kind == "ForUniversalSegmentation" else full.softmax(0)).cpu().numpy())
