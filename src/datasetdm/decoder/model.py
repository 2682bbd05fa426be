"""The P-Decoder: a frozen backbone's features in, annotations of every task out; saved as safetensors with a config."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from datasetdm.backbones import Backbone, RunOptions, find_backbone, is_hub_id, load_backbone, pick_dtype
from datasetdm.backbones.canvas import Placement
from datasetdm.decoder.blocks.pixel import PixelDecoder, Standardise
from datasetdm.decoder.blocks.transformer import CAPTION_GAIN, UNSEEN_WORD_LOGIT, UNSEEN_WORD_WEIGHT, upsample
from datasetdm.decoder.config import CONFIG, DecoderConfig, read_config, write_config
from datasetdm.decoder.inputs import DecoderInput
from datasetdm.decoder.tasks import TASKS, Head, Previous, Tensors, make_task
from datasetdm.decoder.tensor_files import save_tensors
from datasetdm.errors import BackboneError, ConfigError, DecoderError
from datasetdm.io.hub import Repository
from datasetdm.records import Annotations, Labels

BUILTIN = {"mini": Path(__file__).parent.parent / "assets" / "decoder"}
"""Decoders that come with the package."""

WEIGHTS = "model.safetensors"


class PDecoder(nn.Module):
    """Pixel decoder plus one head per task."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.tasks = {name: make_task(name) for name in TASKS if name in config.tasks}
        self.pixels = PixelDecoder(config.specs, config.side, config.width)
        heads = {n: self.tasks[n].head(config.specs, self.pixels.widths, config.text_width) for n in config.tasks}
        self.heads: Mapping[str, Head] = nn.ModuleDict(heads)  # ty: ignore[invalid-assignment]

    @classmethod
    def for_backbone(cls, backbone: Backbone, labels: Labels, tasks: Sequence[str], width: int = 128) -> PDecoder:
        """A fresh decoder whose sizes follow from the backbone's specs."""
        return cls(
            DecoderConfig(
                tuple(tasks), labels, backbone.name, backbone.identity, backbone.config, backbone.specs,
                backbone.text_width, backbone.size[0], width,
            )
        )  # fmt: skip

    def normalisers(self) -> Iterator[tuple[str, Standardise]]:
        """(feature name, module) of every standardisation; its statistics are those of the fitting set."""
        names = {s.name.replace(".", "_"): s.name for s in self.config.specs}
        for path, module in self.named_modules():
            if isinstance(module, Standardise):
                yield names[path.rsplit(".", 1)[-1]], module

    def forward(self, inputs: DecoderInput) -> dict[str, Tensors]:
        """Raw outputs of every task by name, at the finest stride."""
        pyramid = self.pixels(inputs.maps)
        outputs: dict[str, Tensors] = {}
        for name in self.tasks:
            outputs[name] = self.heads[name](pyramid, inputs, Previous(outputs.values()))
        return outputs

    @torch.no_grad()
    def annotate(
        self,
        inputs: DecoderInput,
        places: Sequence[Placement],
        labels: Labels | None = None,
        known: Sequence[Annotations] | None = None,
    ) -> list[Annotations]:
        """Annotations of every image of a batch, each at its own size.

        Args:
            places: where each image lies on the canvas.
            labels: those of the inputs; None is the decoder's own.
            known: annotations per image that are already known: their tasks are skipped, and others build on them.

        Raises:
            DecoderError: a feature map that this decoder reads is missing.
        """
        device = next(self.parameters()).device
        if missing := sorted({n for n, _ in self.normalisers()} - inputs.maps.keys()):
            raise DecoderError(
                f"the backbone gives no {', '.join(missing)}",
                expected="the maps that this decoder was fitted on",
                remedy="load the backbone with the same options (tiles leave the VAE's maps out), or fit the decoder again",
            )
        labels = labels or self.config.labels
        with autocast(device):
            outputs = self(inputs.to(device).for_vocabulary(labels, self.config.seen))
        result: list[Annotations] = []
        for i, place in enumerate(places):
            found = Annotations() if known is None else known[i]
            for name, task in self.tasks.items():
                if getattr(found, task.field) is None:
                    own = outputs[name][i : i + 1].map(lambda x, p=place: p.undo(upsample(x.float(), p.canvas)))[0]
                    found = replace(found, **{task.field: task.postprocess(self.heads[name], own, labels, found)})
            result.append(found)
        return result

    # ------------------------------------------------------------------ files
    def save(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`, the configuration last, so that a folder with one is whole."""
        folder = Path(folder)
        save_tensors(folder / WEIGHTS, self.state_dict())
        write_config(folder, self.config)

    @classmethod
    def load(cls, name: Path | str = "mini", device: str | torch.device = "cpu") -> PDecoder:
        """A saved decoder, by built-in name or folder, in evaluation mode.

        Raises:
            DecoderError: no such folder, or files that do not fit together.
        """
        folder = decoder_folder(name)
        config = read_config(folder)
        try:
            with torch.device("meta"):  # sizes that the weights do not have are found out before they are allocated
                _check_shapes(cls(config).state_dict(), folder / WEIGHTS)
            decoder = cls(config)
            decoder.load_state_dict(load_file(folder / WEIGHTS))
        except (ConfigError, ArithmeticError, LookupError, TypeError, AssertionError) as e:
            raise DecoderError(
                f"the decoder's config.json describes no decoder: {' '.join(str(e).split())[:200]}",
                where=folder / CONFIG,
                expected="the file that `datasetdm fit` wrote",
                remedy="restore it, or fit the decoder again",
            ) from e
        except (OSError, SafetensorError, RuntimeError, ValueError) as e:
            raise DecoderError(
                f"the decoder's weights cannot be read: {' '.join(str(e).split())[:200]}",
                where=folder / WEIGHTS,
                expected="the file that `datasetdm fit` wrote beside config.json",
                remedy="fit the decoder again",
            ) from e
        return decoder.to(device).eval()

    def fingerprint(self, labels: Labels | None = None) -> str:
        """SHA-256 of the weights, of the backbone they belong to and of how they are read: equal exactly when annotations are.

        Args:
            labels: those to annotate; None is the decoder's own.
        """
        read = f"{self.config.identity} {self.config.features} {self.config.tasks} {CAPTION_GAIN} {UNSEEN_WORD_WEIGHT}"
        if new := {*(labels or self.config.labels).names} - self.config.seen:
            read += f" {UNSEEN_WORD_LOGIT} {sorted(new)}"
        h = hashlib.sha256(read.encode())
        for name, value in sorted(self.state_dict().items()):
            h.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
        return h.hexdigest()

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone other than the one this decoder was fitted on."""
        if backbone.identity != self.config.identity:
            raise DecoderError(
                f"this decoder was fitted on another backbone ({self.config.backbone!r})",
                where=f"backbone {backbone.name!r}, weights {backbone.identity[:12]}",
                expected=f"weights {self.config.identity[:12]}",
                remedy=f"use --backbone {self.config.backbone} (a LoRA follows a +), or fit a decoder on {backbone.name}",
            )
        if backbone.config != self.config.features:
            raise DecoderError(
                "this decoder was fitted on features taken in another way",
                where=backbone.config,
                expected=str(self.config.features),
                remedy="load the backbone with config=decoder.config.features",
            )


def decoder_folder(name: str | Path) -> Path:
    """The folder of a built-in name, a folder, or a repository of the hub (`hf://ORG/NAME`), which is downloaded into its cache.

    Raises:
        ConfigError: no such URL. RemoteError: the hub refuses or fails.
    """
    if str(name).startswith("hf://"):
        return Repository.of(str(name)).download([CONFIG, WEIGHTS])
    return BUILTIN.get(str(name), Path(name))


def _check_shapes(built: Mapping[str, Tensor], path: Path) -> None:
    """Raises RuntimeError if a weight that was built has another shape than in the file."""
    with safe_open(path, "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    for name, tensor in built.items():
        if name in shapes and shapes[name] != tuple(tensor.shape):
            raise RuntimeError(f"{name} is {shapes[name]}, expected {tuple(tensor.shape)} by config.json")


def load_pair(
    decoder: str | Path | PDecoder = "mini",
    backbone: str | Backbone | None = None,
    device: str = "auto",
    options: RunOptions | None = None,
) -> tuple[PDecoder, Backbone]:
    """A decoder, and the backbone that it was fitted on (or another, which is refused), on one device."""
    model = decoder if isinstance(decoder, PDecoder) else PDecoder.load(decoder)
    name = own_backbone(model.config) if backbone is None else backbone
    if isinstance(name, str):
        frozen = load_backbone(name, config=model.config.features, device=device, options=options)
    else:
        frozen = name
    model.check_backbone(frozen)
    return model.to(frozen.device).eval(), frozen


def own_backbone(config: DecoderConfig) -> str:
    """The name of the backbone that a decoder was fitted on, for `load_backbone`; hub ids are not looked for.

    Raises:
        DecoderError: it was a folder or a LoRA file, which is not here.
    """
    if not is_hub_id(config.backbone):
        try:
            find_backbone(config.backbone)
        except (BackboneError, ConfigError) as e:
            raise DecoderError(
                f"the backbone that this decoder was fitted on cannot be used: {e.what}",
                where=config.backbone,
                expected=f"the same weights, {config.identity[:12]}, in a folder of this machine",
                remedy="name that folder with --backbone PATH (PATH+LORA.safetensors if it has a LoRA)",
            ) from e
    return config.backbone


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for the decoder where the hardware multiplies it natively."""
    return torch.autocast(device.type, torch.bfloat16, enabled=pick_dtype(device) == torch.bfloat16)
