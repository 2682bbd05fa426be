"""An ordinary model, trained on any mix of labelled data and synthetic samples: what a data set is worth.

The model is one of `datasetdm.downstream`; what is written is an ordinary `transformers` folder. A checkpoint lies in
`OUT/work` until the training is done: the same call goes on where it was stopped, with the same weights at the end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasetdm.backbones import pick_device, pick_dtype
from datasetdm.downstream import STUDENTS, Batch, LossOptions, Student, Variant, normalise
from datasetdm.downstream.files import TrainedModel, build_model, save_model
from datasetdm.downstream.onnx import FILE, export_onnx, require_onnx
from datasetdm.downstream.pool import Batches, Pool
from datasetdm.downstream.self_training import self_training_loss
from datasetdm.errors import ConfigError, DataError, OutputError, unknown_name
from datasetdm.io.files import locked, occupied, remove_leftovers, write_json, write_text
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.readers import Reader, read
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)
from datasetdm.transforms import accepted, apply
from datasetdm.transforms.reviews import reviews_of

RULES = 2
"""Raised whenever the same settings begin to give other weights: an unfinished training of older rules is not gone on with."""

LOCK = ".train.lock"
WORK = "work"
LOG = "log.jsonl"
"""One line per logged step: step, loss, learning rate, seconds since the command began."""
LOG_EVERY = 10

MAX_GRADIENT = 1.0
"""Norm at which gradients are clipped."""


@dataclass(frozen=True)
class TrainProgress:
    """`done` of `total` steps, and the last loss."""

    done: int
    total: int
    loss: float = float("nan")


def train(
    data: str | Reader,
    out: Path | str,
    *,
    synthetic: str | Reader | None = None,
    self_training: str | Reader | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train an ordinary model and save it in `out` as a folder of `transformers`.

    Reviews of a store are applied, rejected samples are left out.

    Args:
        data: FORMAT:PATH or an open reader; the model learns its labels.
        synthetic: more samples, whose labels are matched by name.
        self_training: images whose labels are ignored; see `datasetdm.downstream.self_training`.
        settings: fields of `TrainConfig`.

    Raises:
        DataError: nothing to learn from, or a loss that is not finite.
        OutputError: `out` holds something else, or another process writes it.
    """
    config = validated(TrainConfig, **settings)
    for _ in iter_train(data, out, synthetic=synthetic, self_training=self_training, config=config):
        pass
    return TrainedModel.load(out)


def iter_train(
    data: str | Reader,
    out: Path | str,
    *,
    synthetic: str | Reader | None = None,
    self_training: str | Reader | None = None,
    config: TrainConfig | None = None,
    device: str = "auto",
) -> Iterator[TrainProgress]:
    """`train` as a generator that says how far it is."""
    config, out, target = config or TrainConfig(), Path(out), pick_device(device)
    kind = STUDENTS.load(config.student)
    variant = choose_variant(kind, config.variant)
    side = config.size or variant.side
    if config.onnx:
        require_onnx(kind.name, kind.outputs)
    if self_training is not None and not kind.self_trains:
        known = ", ".join(n for n in STUDENTS if STUDENTS.load(n).self_trains)
        raise ConfigError(
            f"a {kind.name} cannot learn from images without labels",
            expected=f"one of: {known}",
            remedy="leave --self-training out",
        )
    with locked(out / LOCK, "model"):
        _check_place(out)
        remove_leftovers(out)
        reader = _opened(data)
        student = kind(reader.labels, LossOptions(config.class_weights, config.label_smoothing))
        real = Pool(_usable(reader), student, out / WORK / "real.arrow")
        more = None if synthetic is None else Pool(_usable(_opened(synthetic)), student, out / WORK / "synthetic.arrow")
        images = None if self_training is None else Pool(
            _usable(_opened(self_training)), student, out / WORK / "unlabelled.arrow", labelled=False
        )  # fmt: skip
        recipe = _recipe(config, student, real, more, images)
        _claim(out, recipe)
        torch.manual_seed(config.seed)
        model = build_model(student, variant, side, config.encoder).to(target)
        batches = Batches(student, real, more, config.synthetic_fraction, config.batch, side, config.seed, images)
        run = _Run(student, model, student.processor(side), batches, config, out, target)
        yield from run.steps()
        if config.onnx:
            export_onnx(run.average.module, student.frame(side), student.outputs, out / FILE)
        counts = {"images": real, "synthetic_images": more, "unlabelled_images": images}
        counted = {name: 0 if pool is None else pool.images for name, pool in counts.items()}
        save_model(
            out,
            run.average.module,
            run.processor,
            {"labels": student.labels.to_json(), "trained": {**recipe, **counted}},
        )
        shutil.rmtree(out / WORK)


def choose_variant(student: type[Student[Any]], name: str) -> Variant:
    """A size of a student by name. Raises ConfigError for an unknown one."""
    if name not in student.variants:
        raise unknown_name("variant", name, student.variants)
    return student.variants[name]


def _opened(data: str | Reader) -> Reader:
    return read(data) if isinstance(data, str) else data


def _usable(reader: Reader) -> Iterable[Any]:
    return accepted(apply(reader, reader.labels, reviews_of(reader))[0])


def _check_place(out: Path) -> None:
    """Raises OutputError for a folder that holds anything but an unfinished training."""
    if occupied(out) and not (out / WORK / "recipe.json").exists():
        raise OutputError(
            "the output folder is not empty", where=out, expected="a new folder", remedy="choose another --out"
        )


def _recipe(
    config: TrainConfig, student: Student[Any], real: Pool, synthetic: Pool | None, unlabelled: Pool | None
) -> dict[str, Any]:
    """All that the weights depend on, JSON-ready."""
    value = {
        "rules": RULES,
        "config": config.model_dump(exclude={"save_every", "onnx"}),
        "data": real.digest,
        "synthetic": None if synthetic is None else synthetic.digest,
        "unlabelled": None if unlabelled is None else unlabelled.digest,
        "names": student.labels.names,
    }
    return json.loads(json.dumps(value))


def _claim(out: Path, recipe: Mapping[str, Any]) -> None:
    """Raises OutputError if the folder holds an unfinished training of another recipe."""
    mark = out / WORK / "recipe.json"
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) != recipe:
        raise OutputError(
            "the output folder belongs to another, unfinished training",
            where=out,
            expected="the same data and settings",
            remedy="choose another --out, or delete it",
        )
    write_json(mark, recipe)


# ---------------------------------------------------------------------- steps
class _Run:
    """A training that goes on from its checkpoint, if there is one."""

    def __init__(
        self, student: Student[Any], model: Any, processor: Any, batches: Batches, config: TrainConfig, out: Path,
        device: torch.device,
    ):  # fmt: skip
        self.student, self.model, self.processor, self.batches = student, model, processor, batches
        self.config, self.out, self.device = config, out, device
        self.encoder = model.get_submodule(student.encoder)
        self.encoder.requires_grad_(not config.frozen)
        learnt = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(learnt, config.learning_rate, weight_decay=config.weight_decay)
        self.learner, self.average = Learner(model, optimiser, MAX_GRADIENT), WeightAverage(model)
        self.checkpoint = out / WORK / "checkpoint.safetensors"
        found = load_checkpoint(self.checkpoint, self.average, {"model": self.learner})
        self.step = found.numbers["step"] if found else 0
        self.began = time.monotonic()
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=device.type == "cuda" and pick_dtype(device) == torch.bfloat16
        )

    def steps(self) -> Iterator[TrainProgress]:
        """The steps that are left."""
        _cut_log(self.out / LOG, self.step)
        with closing(self.batches.from_step(self.step, self.config.steps)) as batches:
            for batch in batches:
                loss = self._step(batch)
                if self.step % LOG_EVERY == 0 or self.step == self.config.steps:
                    self._log(loss)
                if self.step % self.config.save_every == 0:
                    save_checkpoint(self.checkpoint, self.average, {"model": self.learner}, {"step": self.step})
                yield TrainProgress(self.step, self.config.steps, loss)

    def _step(self, batch: Batch[Any]) -> float:
        """One optimiser step; random numbers depend on the seed and the step's number only."""
        seed = (self.config.seed * 1_000_003 + self.step) % 2**31
        batch = batch.to(self.device)
        if self.config.augment:
            batch = self.student.augment(batch, seed)
        torch.manual_seed(seed)
        self.model.train()
        self.encoder.train(not self.config.frozen)
        with self.autocast:
            loss = self.student.loss(self.model, normalise(batch.images, self.processor), batch)
            if batch.unlabelled is not None:
                own, teacher, config = self.student, self.average.module, self.config
                loss = loss + config.self_training_weight * self_training_loss(
                    own, self.model, teacher, self.processor, batch.unlabelled, config.self_training_confidence, seed
                )
        if not torch.isfinite(loss):
            keys = (self.batches.pools[p][n].key for p, n in self.batches.chosen(self.step))
            raise DataError(
                f"the loss is not finite at step {self.step}",
                where=f"samples {', '.join(keys)}",
                remedy="the last checkpoint is kept; lower --learning-rate, or look at these images' labels",
            )
        self.learner.step(loss, self.learning_rate)
        self.step += 1
        self.average.update(average_decay(self.step, self.config.average_decay))
        return float(loss.detach())

    @property
    def learning_rate(self) -> float:
        """Of the next step: it rises, then falls as a cosine."""
        factor = warm_up(self.step, self.config.warm_up) * cosine(self.step / self.config.steps)
        return self.config.learning_rate * factor

    def _log(self, loss: float) -> None:
        row = {
            "step": self.step,
            "loss": round(loss, 5),
            "learning_rate": self.learning_rate,
            "seconds": round(time.monotonic() - self.began, 2),
        }
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed training takes again."""
    if path.exists():
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        write_text(path, "".join(f"{line}\n" for line in rows))


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a kill cut off
        return float("inf")
