"""An encoder that knows the words of the captioned renders: what ImageNet is to photographs.

    python -m benchmarks.students.pretrain WORK          makes it, or says where it lies

A SegFormer for image classification learns which words an image's caption holds. Captions of the train split alone are read, no
label of a pixel.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.baselines.words import vocabulary, word_table
from benchmarks.common import RENDERS
from benchmarks.students.data import files_digest
from datasetdm.backbones import pick_device
from datasetdm.downstream import STUDENTS, normalise
from datasetdm.downstream.files import CONFIG, save_model
from datasetdm.pipelines.train import choose_variant
from datasetdm.readers import read
from datasetdm.readers.formats.mini import LABELS
from datasetdm.training.augment import augment_batch
from datasetdm.training.loop import Learner, cosine, warm_up

RULES = 1
"""Raised whenever the same settings begin to give other weights."""
WARM_UP, WEIGHT_DECAY, MAX_GRADIENT = 50, 0.05, 1.0
STUDENT = "segformer"


@dataclass(frozen=True)
class Pretraining:
    """Its settings.

    Args:
        steps: of the optimiser. batch: images per step.
        size: side of the images in pixels; None is the variant's.
    """

    steps: int = 1500
    batch: int = 16
    learning_rate: float = 2e-3
    variant: str = "tiny"
    size: int | None = None
    seed: int = 0

    def story(self, renders: Path) -> dict[str, Any]:
        """What the encoder depends on, JSON-ready. renders: prefix of the captioned files."""
        return {"rules": RULES, "settings": vars(self), "files": files_digest(renders)}

    def encoder(self, renders: Path, work: Path, device: str = "cpu") -> Path:
        """The folder of the encoder in `work`, made if it is not there."""
        story = self.story(renders)
        name = hashlib.sha256(json.dumps(story, sort_keys=True).encode()).hexdigest()[:12]
        folder = work / f"encoder-{name}"
        if not (folder / CONFIG).exists():
            samples = read(f"mini:{renders}")
            images, captions = zip(*((s.image, s.caption) for s in samples), strict=True)
            self._pretrain(np.stack(images), captions, folder, story, pick_device(device))
        return folder

    def _pretrain(
        self, images: np.ndarray, captions: Sequence[str], folder: Path, story: dict[str, Any], device: torch.device
    ) -> None:
        from transformers import SegformerConfig, SegformerForImageClassification

        kind = STUDENTS.load(STUDENT)
        variant = choose_variant(kind, self.variant)
        student, words = kind(LABELS), vocabulary(captions)
        truth = word_table(captions, words)
        torch.manual_seed(self.seed)
        config = SegformerConfig(**variant.settings, id2label=dict(enumerate(words)))
        model: Any = SegformerForImageClassification(config).to(device)
        side = self.size or variant.side
        pixels = F.interpolate(torch.from_numpy(images).movedim(-1, 1).float() / 255, (side, side), mode="area")
        processor = student.processor(side)
        optimiser = torch.optim.AdamW(model.parameters(), self.learning_rate, weight_decay=WEIGHT_DECAY)
        learner, losses = Learner(model.train(), optimiser, MAX_GRADIENT), []
        rng = np.random.default_rng(self.seed)
        for step in range(self.steps):
            rows = torch.from_numpy(rng.permutation(len(pixels))[: self.batch])
            views, *_ = augment_batch(pixels[rows].to(device), (), self.seed * 1_000_003 + step)
            logits = model(normalise(views, processor)).logits
            loss = F.binary_cross_entropy_with_logits(logits.float(), truth[rows].to(device))
            learner.step(loss, self.learning_rate * warm_up(step, WARM_UP) * cosine(step / self.steps))
            losses.append(float(loss.detach()))
        found = {"words": words, "first_loss": losses[0], "last_loss": float(np.mean(losses[-20:]))}
        shutil.rmtree(folder, ignore_errors=True)
        save_model(folder, model.segformer, processor, {"labels": LABELS.to_json(), "pretrained": {**story, **found}})


PRETRAINING = Pretraining()


def main(arguments: list[str] | None = None) -> None:
    """Pretrain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder; of the tables: that of --work")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    print(PRETRAINING.encoder(RENDERS / "train", options.work, options.device))


if __name__ == "__main__":
    main()
