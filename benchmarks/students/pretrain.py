"""An encoder that knows the words of captioned renders: what ImageNet is to photographs.

    python -m benchmarks.students.pretrain RENDERS OUT          RENDERS: folder of captioned-*.parquet, see `miniworld`

A SegFormer for image classification learns which words an image's caption holds, first on images of half the side, which cost a
quarter. No label of a pixel is read. The encoder that the tables use lies in `ENCODER`; its `datasetdm.json` says from what it
was made. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from miniworld.pretrain.data import Captioned, read
from torch import Tensor
from torch.nn import functional as F

from benchmarks import common  # noqa: F401  (finds the package miniworld)
from benchmarks.baselines.words import vocabulary, word_table
from datasetdm.backbones import pick_device
from datasetdm.downstream import STUDENTS, normalise
from datasetdm.downstream.files import save_model
from datasetdm.io.digests import file_digest
from datasetdm.pipelines.train import choose_variant
from datasetdm.readers.formats.mini import LABELS
from datasetdm.training.augment import augment_batch
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)

ENCODER = Path(__file__).parent / "encoder"
STUDENT = "segformer"
HELD_OUT = 400
"""Images that are not learnt from."""
WARM_UP, WEIGHT_DECAY, MAX_GRADIENT, DECAY = 200, 0.05, 1.0, 0.999
SAVE_EVERY = 1000


def encoder_digest(folder: Path) -> str:
    """A name that other weights do not have."""
    return file_digest(folder / "model.safetensors")[:16]


@dataclass(frozen=True)
class Pretraining:
    """Its settings.

    Args:
        small_steps: of the optimiser, on images of half the side.
        steps: the ones after them, on whole images.
        batch: images per step.
        side: of whole images in pixels; None is the variant's.
    """

    small_steps: int = 20_000
    steps: int = 5_000
    batch: int = 32
    learning_rate: float = 2e-3
    variant: str = "tiny"
    side: int | None = None
    seed: int = 0

    def make(self, data: Captioned, out: Path, device: str = "cpu") -> Iterator[tuple[int, float]]:
        """Write the encoder into the folder `out`.

        Yields:
            The steps that are done and the loss, once every `SAVE_EVERY` steps.
        """
        from transformers import SegformerConfig, SegformerForImageClassification

        kind, words, place = STUDENTS.load(STUDENT), vocabulary(data.captions), pick_device(device)
        variant = choose_variant(kind, self.variant)
        whole = self.side or variant.side
        processor = kind(LABELS).processor(whole)
        torch.manual_seed(self.seed)
        config = SegformerConfig(**variant.settings, id2label=dict(enumerate(words)))
        model: Any = SegformerForImageClassification(config).to(place)
        optimiser = torch.optim.AdamW(model.parameters(), self.learning_rate, weight_decay=WEIGHT_DECAY)
        learner, average = Learner(model.train(), optimiser, MAX_GRADIENT), WeightAverage(model)
        checkpoint, total = out / "checkpoint.safetensors", self.small_steps + self.steps
        images, truth = data.images(), word_table(data.captions, words)
        held = min(HELD_OUT, len(images) // 4)
        resumed = load_checkpoint(checkpoint, average, {"model": learner}, place)
        done = int(resumed.numbers["step"]) if resumed else 0
        for step in range(done, total):
            rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
            rows = torch.randint(held, len(images), (self.batch,), generator=rng)
            side = whole // 2 if step < self.small_steps else whole
            pixels = _resize(images[rows].to(place), side)
            views, *_ = augment_batch(pixels, (), self.seed * 1_000_003 + step)
            logits = model(normalise(views, processor)).logits
            loss = F.binary_cross_entropy_with_logits(logits.float(), truth[rows].to(place))
            learner.step(loss, self.learning_rate * warm_up(step, WARM_UP) * cosine(step / total))
            average.update(average_decay(step + 1, DECAY))
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == total:
                save_checkpoint(checkpoint, average, {"model": learner}, {"step": step + 1})
                yield step + 1, float(loss.detach())
        found = self._precision(average.module, processor, images[:held], truth[:held], place)
        story = {"settings": asdict(self), "images": len(images) - held, "data": data.identity, "words": words}
        save_model(
            out,
            average.module.segformer,
            processor,
            {"labels": LABELS.to_json(), "pretrained": story | {"found": found}},
        )
        checkpoint.unlink()

    @torch.no_grad()
    def _precision(
        self,
        model: Any,
        processor: Any,
        images: UInt8[Tensor, "n 3 H W"],
        truth: Float[Tensor, "n words"],
        place: torch.device,
    ) -> float:
        """Mean average precision of the words that images which were not learnt from hold."""
        from torchmetrics.classification import MultilabelAveragePrecision

        side = processor.size["height"]
        parts = [normalise(_resize(part.to(place), side), processor) for part in images.split(self.batch)]
        logits = torch.cat([model(part).logits for part in parts]).cpu()
        known = truth.sum(0) > 0
        meter = MultilabelAveragePrecision(int(known.sum()))
        return round(float(meter(logits[:, known].sigmoid(), truth[:, known].long())), 4)


def _resize(images: UInt8[Tensor, "b 3 H W"], side: int) -> Float[Tensor, "b 3 h w"]:
    return F.interpolate(images.float() / 255, (side, side), mode="area")


def main(arguments: list[str] | None = None) -> None:
    """Pretrain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("renders", type=Path, help="folder of captioned-*.parquet")
    parser.add_argument("out", type=Path, help="folder of the encoder")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    for step, loss in Pretraining().make(read([options.renders]), options.out, options.device):
        print(f"step {step}, loss {loss:.4f}", flush=True)
    print(options.out)


if __name__ == "__main__":
    main()
