"""Trained models as ONNX files, which run without torch."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasetdm.downstream import Student
from datasetdm.errors import ConfigError, OutputError
from datasetdm.io.files import atomic

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxruntime")
OPSET = 17
TOLERANCE = 1e-3
"""By how much outputs of onnxruntime may differ from torch's, in units of their largest value."""


def require_onnx(student: type[Student[Any]], side: int) -> None:
    """Raises ConfigError if the student cannot be an ONNX file for images of this side, or a package that writes or checks them
    is missing."""
    if not student.outputs:
        raise ConfigError(f"a {student.name} cannot be written as an ONNX file", remedy="leave --onnx out")
    if side < student.smallest_onnx:
        raise ConfigError(
            f"a {student.name} for images of {side} pixels cannot be written as an ONNX file",
            expected=f"--size {student.smallest_onnx} or more",
            remedy="leave --onnx out",
        )
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            f"ONNX files need packages that are not there: {', '.join(missing)}",
            remedy="pip install 'datasetdm[onnx]', or leave --onnx out",
        )


class _Outputs(nn.Module):
    """The model with a tuple of tensors as its output."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        outputs: Any = self.model(pixel_values=pixel_values)
        return tuple(outputs[name] for name in self.names)


def export_onnx(model: Any, frame: tuple[int, int], outputs: tuple[str, ...], path: Path) -> None:
    """Write a model for images of one size, any number of them at a time, and compare its outputs with those of torch.

    The exporter is that of TorchScript: it takes a tenth of the time of the newer one and needs fewer packages.

    Args:
        model: of transformers.
        frame: (height, width) of the images in pixels.
        outputs: the names of its outputs that are wanted.
        path: the file.

    Raises:
        OutputError: onnxruntime gives other outputs than torch.
    """
    wrapped = _Outputs(model.eval().cpu(), outputs).eval()
    batched = {name: {0: "batch"} for name in ("pixel_values", *outputs)}
    with atomic(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter(
                "ignore"
            )  # of the exporter: deprecations, and Python numbers that it keeps as constants
            torch.onnx.export(
                wrapped, (torch.zeros(2, 3, *frame),), str(temporary), dynamo=False, opset_version=OPSET,
                input_names=["pixel_values"], output_names=list(outputs), dynamic_axes=batched,
            )  # fmt: skip
        _compare(wrapped, frame, temporary)


@torch.no_grad()
def _compare(wrapped: nn.Module, frame: tuple[int, int], path: Path) -> None:
    import onnxruntime

    images = torch.rand(3, 3, *frame, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {"pixel_values": images.numpy()})
    for own, other in zip(wrapped(images), found, strict=True):
        difference = np.abs(own.numpy() - np.asarray(other)).max() / np.abs(own.numpy()).max()
        if not difference <= TOLERANCE:
            raise OutputError(
                f"onnxruntime gives other outputs than torch: they differ by {difference:.2g} of the largest value",
                where=path,
                expected=f"at most {TOLERANCE}",
                remedy="leave --onnx out, and use the folder with transformers",
            )
