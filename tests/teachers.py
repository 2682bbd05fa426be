"""Teachers for tests, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from datasetdm.quality.onnx_teachers import MEAN, STD

COLOURS = np.array([[120, 170, 250], [120, 80, 40], [60, 150, 60]])
"""Of sky, dog and grass in `make_sample`."""


def colour_teacher(path: Path, names: Any = "['Sky', 'puppy', 'grass']", side: int | str = 24) -> str:
    """An ONNX file that names every pixel by its nearest colour: one 1x1 convolution."""
    colours = (COLOURS / 255 - MEAN) / STD
    weights = {"w": (2 * colours)[..., None, None], "b": -(colours**2).sum(1)}
    nodes = [helper.make_node("Conv", ["pixels", "w", "b"], ["logits"])]
    return _save(path, nodes, weights, ["n", 3, side, side], {"logits": ["n", 3, side, side]}, names)


def dog_finder(path: Path, layout: str, names: Any = "{0: 'grass', 1: 'dog'}") -> str:
    """An ONNX file that finds one object: the box around all pixels of the dog's colour in `make_sample`; another one has too low
    a score.

    Args:
        layout: "rows", "softmax" or "sigmoid", see `datasetdm.quality.onnx_teachers`.
    """
    mean, std = ((0, 0, 0), (1, 1, 1)) if layout == "rows" else (MEAN, STD)
    values = {"colour": (COLOURS[1] / 255 - mean) / std, "near": 0.12 / np.array(std)}
    values = {k: v.reshape(1, 3, 1, 1) for k, v in values.items()} | {"one": np.ones(1), "half": np.full(1, 0.5)}
    operations: list[Any] = [
        ("Sub", ["pixels", "colour"], "difference"), ("Abs", ["difference"], "distance"), ("Less", ["distance", "near"], "is_near"),
        ("Cast", ["is_near"], "near_colours", {"to": TensorProto.FLOAT}),
        ("ReduceMin", ["near_colours"], "mask", {"axes": [1], "keepdims": 0}),
    ]  # fmt: skip
    for name, axis in (("x", 1), ("y", 2)):
        operations += [
            ("ReduceMax", ["mask"], f"{name}_any", {"axes": [axis], "keepdims": 0}),
            ("ArgMax", [f"{name}_any"], f"{name}_first", {"axis": 1}),
            ("ArgMax", [f"{name}_any"], f"{name}_last", {"axis": 1, "select_last_index": 1}),
            ("Cast", [f"{name}_first"], f"{name}_low", {"to": TensorProto.FLOAT}),
            ("Cast", [f"{name}_last"], f"{name}_end", {"to": TensorProto.FLOAT}),
            ("Add", [f"{name}_end", "one"], f"{name}_high"),
            ("Sub", [f"{name}_high", f"{name}_low"], f"{name}_size"),
            ("Add", [f"{name}_high", f"{name}_low"], f"{name}_sum"),
            ("Mul", [f"{name}_sum", "half"], f"{name}_middle"),
        ]
    height, width = 40, 64
    if layout == "rows":
        values |= {"others": np.array([[[0.9, 1], [0.1, 0]]])}
        ends, outputs = ["x_low", "y_low", "x_high", "y_high"], {"rows": [1, 2, 6]}
        last = [("Concat", ["both", "others"], "rows", {"axis": 2})]
    else:
        logits = np.array([[-5, 5, 0], [-5, -5, 9]]) if layout == "softmax" else np.array([[-5, 5], [-5, -5]])
        values |= {"size": np.array([width, height] * 2), "constant": logits[None]}
        ends = ["x_middle", "y_middle", "x_size", "y_size"]
        outputs = {"logits": [1, *logits.shape], "pred_boxes": [1, 2, 4]}
        last = [("Div", ["both", "size"], "pred_boxes"), ("Identity", ["constant"], "logits")]
    operations += [("Concat", ends, "box", {"axis": 1}), ("Concat", ["box", "box"], "flat", {"axis": 0}), *last]
    operations.insert(-len(last), ("Unsqueeze", ["flat", "first"], "both"))
    nodes = [helper.make_node(op, taken, [made], **dict(*rest)) for op, taken, made, *rest in operations]
    return _save(path, nodes, values | {"first": np.zeros(1, np.int64)}, [1, 3, height, width], outputs, names)


def _save(path: Path, nodes: Any, values: Any, shape: Any, outputs: Any, names: Any) -> str:
    """An ONNX file of images `pixels`, with the labels' names in its metadata."""
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, own) for n, own in outputs.items()],
        [numpy_helper.from_array(v if n == "first" else v.astype(np.float32), n) for n, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, str(path))
    return str(path)
