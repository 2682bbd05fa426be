"""The work folder: what is where, and which preset it belongs to.

preset.json                   name of the preset
vae.safetensors               checkpoint of the stage (see loop.py)
unet.safetensors              likewise, with the text encoder
tokenizer/                    made once from the captions
scale.json                    factor that brings the VAE's latents to unit spread
latents-full.safetensors      all images and mirrors, encoded; latents-half.safetensors: of half-size images
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from datasetdm.io.files import write_json

from . import PretrainError, hardware
from .config import Preset, find_preset


@dataclass(frozen=True)
class Work:
    """A work folder of one preset."""

    folder: Path
    preset: Preset

    @classmethod
    def open(cls, folder: Path, name: str | None = None) -> Work:
        """An existing or a new folder; name: the preset, by default the folder's own, or the one for this machine."""
        note = folder / "preset.json"
        own = json.loads(note.read_text())["preset"] if note.is_file() else None
        if own and name and own != name:
            raise PretrainError(f"{folder} was begun with preset {own}, not {name}: leave --preset out, or --work DIR")
        preset = find_preset(own or name or ("gpu" if hardware.device().type == "cuda" else "cpu"))
        if not own:
            write_json(note, {"preset": preset.name})
        return cls(folder, preset)

    @classmethod
    def existing(cls, folder: Path) -> Work:
        """A folder in which something has been trained."""
        if not (folder / "preset.json").is_file():
            raise PretrainError(f"{folder} is no work folder: run stage vae first")
        return cls.open(folder)

    def checkpoint(self, stage: str) -> Path:
        """Where a stage keeps what it learnt."""
        return self.folder / f"{stage}.safetensors"

    def finished(self, stage: str) -> Path:
        """The same, if the stage has run."""
        path = self.checkpoint(stage)
        if not path.is_file():
            raise PretrainError(f"{self.folder} holds no {stage}: run stage {stage} first")
        return path

    def latents(self, half: bool) -> Path:
        """Where the encoded images are kept."""
        return self.folder / f"latents-{'half' if half else 'full'}.safetensors"

    @property
    def scale(self) -> Path:
        """Where the latents' scale is kept."""
        return self.folder / "scale.json"

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer."""
        return self.folder / "tokenizer"
