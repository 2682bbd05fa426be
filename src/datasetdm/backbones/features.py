"""What a frozen backbone computes from an image: feature maps at several strides, and the hooks that catch them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from datasetdm.errors import BackboneError

FINEST = 128
"""Positions per side of the finest maps that are read, and at most four times as many as latents have; finer ones are
neither kept nor decoded."""


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map that a backbone promises.

    channels: of `f[b channels h w]` (hidden, vae), or maps per label of `f[b labels channels h w]` (attention).
    stride: image pixels per feature position.
    """

    name: str
    channels: int
    stride: int
    kind: Literal["hidden", "attention", "vae"]


@dataclass(frozen=True)
class Features:
    """A batch of images as the backbone sees them.

    maps: by spec name, `f[b c h w]`; attention `f[b l c h w]`, one row per label of the vocabulary.
    text: what the labels mean, `f[l d]`.
    images: the decoded images, `f[b 3 H W]` in 0..1.
    """

    maps: Mapping[str, Tensor]
    text: Float[Tensor, "l d"]
    images: Float[Tensor, "b 3 H W"]


class Capture:
    """Forward hooks on named modules, for the duration of a `with` block; the modules compute what they always do.

    `outputs[name]` is what a module returned (the first element of a tuple); `inputs[name]` the first tensor that it
    was given, kept only for the names in `want_inputs`. A module that never ran, or ran twice (so that one of its maps would
    be lost), is an error.
    """

    def __init__(self, outputs: Mapping[str, nn.Module], want_inputs: Mapping[str, nn.Module] | None = None):
        self._output_modules, self._input_modules = outputs, want_inputs or {}
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Capture:
        for name, module in self._output_modules.items():
            self._handles.append(module.register_forward_hook(self._keep_output(name)))
        for name, module in self._input_modules.items():
            self._handles.append(module.register_forward_pre_hook(self._keep_input(name), with_kwargs=True))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        silent = [n for n in self._output_modules if n not in self.outputs]
        silent += [n for n in self._input_modules if n not in self.inputs]
        if silent and error is None:
            raise BackboneError(
                f"no feature arrived from {', '.join(silent)}",
                expected="every hooked module to run in the features pass",
                remedy="this pipeline's architecture is not supported yet; please report its model_index.json",
            )

    def _keep_output(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if name in self.outputs:
                raise BackboneError(
                    f"{name} ran twice in one features pass",
                    expected="whole images",
                    remedy="load the backbone with RunOptions(tiles=True), not by enabling the pipeline's own tiling",
                )
            self.outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _keep_input(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.inputs[name] = args[0] if args else kwargs["hidden_states"]

        return hook
