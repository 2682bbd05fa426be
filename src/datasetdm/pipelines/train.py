"""An ordinary model, trained on any mix of labelled data and synthetic samples: what a data set is worth.

The model is one of `datasetdm.downstream`; what is written is an ordinary `transformers` folder. A checkpoint lies in
`OUT/work` until the training is done: the same call goes on where it was stopped, with the same weights at the end. Started as
several processes (torchrun), each learns from its part of every batch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from datasetdm.backbones import pick_device, pick_dtype
from datasetdm.downstream import STUDENTS, Batch, LossOptions, Student, Variant, normalise
from datasetdm.downstream.files import TrainedModel, build_model, save_model
from datasetdm.downstream.onnx import FILE, export_onnx, require_onnx
from datasetdm.downstream.pool import Batches, Pool
from datasetdm.downstream.self_training import self_training_loss
from datasetdm.errors import ConfigError, DataError, unknown_name
from datasetdm.io.files import locked
from datasetdm.io.settings import validated
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.unfinished import SPILLED, WORK, claim, require_free
from datasetdm.readers import Reader, read
from datasetdm.records import Sample
from datasetdm.training.log import TrainingLog, require_tensorboard
from datasetdm.training.loop import (
    Learner,
    WeightAverage,
    average_decay,
    cosine,
    load_checkpoint,
    save_checkpoint,
    warm_up,
)
from datasetdm.training.processes import Processes, joined
from datasetdm.transforms import accepted, apply
from datasetdm.transforms.reviews import reviews_of

RULES = 2
"""Raised whenever the same settings begin to give other weights: an unfinished training of older rules is not gone on with."""

LOCK = ".train.lock"
LOG_EVERY = 10
"""Steps between two lines of the log."""

MAX_GRADIENT = 1.0
"""Norm at which gradients are clipped."""


@dataclass(frozen=True)
class TrainProgress:
    """`done` of `total` steps, and the last loss."""

    done: int
    total: int
    loss: float = float("nan")


Mix = str | Reader | Sequence[str | Reader]
"""FORMAT:PATH or an open reader, or several of them: every sample of all has the same chance."""


def train(
    data: Mix,
    out: Path | str,
    *,
    synthetic: Mix | None = None,
    self_training: Mix | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train an ordinary model and save it in `out` as a folder of `transformers`.

    Reviews of a store are applied, rejected samples are left out.

    Args:
        data: labelled images; the model learns the labels of the first reader, those of the others are matched by name.
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
    data: Mix,
    out: Path | str,
    *,
    synthetic: Mix | None = None,
    self_training: Mix | None = None,
    config: TrainConfig | None = None,
    device: str = "auto",
) -> Iterator[TrainProgress]:
    """`train` as a generator that says how far it is."""
    config, out = config or TrainConfig(), Path(out)
    kind, variant, side = choose_student(config, self_training is not None)
    with joined(pick_device(device)) as (processes, target), _owned(out, processes):
        if config.batch % processes.count:
            raise ConfigError(
                f"{config.batch} images per step cannot be split over {processes.count} processes",
                expected="a --batch that is a multiple of their number",
            )
        readers = _opened(data)
        student = kind(readers[0].labels, LossOptions(config.class_weights, config.label_smoothing))

        def pool(mix: Mix, name: str, labelled: bool = True) -> Pool:
            return Pool(
                _usable(_opened(mix)), student, out / WORK / f"{name}-{processes.rank}{SPILLED}", labelled=labelled
            )

        real = pool(readers, "real")
        more = None if synthetic is None else pool(synthetic, "synthetic")
        images = None if self_training is None else pool(self_training, "unlabelled", labelled=False)
        recipe = _recipe(config, student, real, more, images)
        torch.manual_seed(config.seed)
        model = build_model(student, variant, side, config.encoder).to(target)
        if processes.first:
            claim(out, recipe, "training")
        processes.wait()
        batches = Batches(
            student, real, more, config.synthetic_fraction, config.batch, side, config.seed, images, processes
        )
        run = _Run(student, processes.shared_statistics(model), student.processor(side), batches, config, out, target)
        yield from run.steps()
        if processes.first:
            if config.onnx:
                export_onnx(run.average.module, student.frame(side), student.outputs, out / FILE)
            counts = {"images": real, "synthetic_images": more, "unlabelled_images": images}
            counted = {name: 0 if pool is None else pool.images for name, pool in counts.items()}
            story = {"labels": student.labels.to_json(), "trained": {**recipe, **counted}}
            save_model(out, run.average.module, run.processor, story)
            shutil.rmtree(out / WORK)
        processes.wait()


def choose_student(config: TrainConfig, self_training: bool) -> tuple[type[Student[Any]], Variant, int]:
    """The student, its size, and the side of the images that it sees.

    Args:
        config: settings of a training.
        self_training: whether it learns from images without labels, too.

    Raises:
        ConfigError: an unknown student or size, a setting that this student would not heed, or a package that is missing.
    """
    kind = STUDENTS.load(config.student)
    variant = choose_variant(kind, config.variant)
    side = config.size or variant.side
    if config.onnx:
        require_onnx(kind, side)
    if config.tensorboard:
        require_tensorboard()
    if self_training:
        _require(kind, "self_trains", "cannot learn from images without labels", "--self-training")
    if config.frozen and config.encoder is None:
        raise ConfigError(
            "an encoder from scratch would keep its random weights",
            expected="--encoder with --frozen",
            remedy="leave --frozen out",
        )
    if config.label_smoothing:
        _require(kind, "weighs_pixels", "knows no label smoothing", "--label-smoothing")
    return kind, variant, side


def choose_variant(student: type[Student[Any]], name: str) -> Variant:
    """A size of a student by name. Raises ConfigError for an unknown one."""
    if name not in student.variants:
        raise unknown_name("variant", name, student.variants)
    return student.variants[name]


def _require(kind: type[Student[Any]], ability: str, lacks: str, option: str) -> None:
    """Raises ConfigError for an option that a student would not heed."""
    if not getattr(kind, ability):
        known = ", ".join(n for n in STUDENTS if getattr(STUDENTS.load(n), ability))
        raise ConfigError(f"a {kind.name} {lacks}", expected=f"one of: {known}", remedy=f"leave {option} out")


@contextmanager
def _owned(out: Path, processes: Processes) -> Generator[None]:
    """The folder, free or with an unfinished training, locked by the first process."""
    with locked(out / LOCK, "model") if processes.first else nullcontext():
        if processes.first:
            require_free(out)
        processes.wait()
        yield


def _opened(data: Mix) -> list[Reader]:
    several: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    return [read(d) if isinstance(d, str) else d for d in several]


def _usable(readers: Sequence[Reader]) -> Iterable[Sample]:
    return chain.from_iterable(accepted(apply(r, r.labels, reviews_of(r))[0]) for r in readers)


def _recipe(
    config: TrainConfig, student: Student[Any], real: Pool, synthetic: Pool | None, unlabelled: Pool | None
) -> dict[str, Any]:
    """All that the weights depend on, JSON-ready."""
    value = {
        "rules": RULES,
        "config": config.model_dump(exclude={"save_every", "onnx", "tensorboard"}),
        "data": real.digest,
        "synthetic": None if synthetic is None else synthetic.digest,
        "unlabelled": None if unlabelled is None else unlabelled.digest,
        "names": student.labels.names,
    }
    return json.loads(json.dumps(value))


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
        self.processes = batches.processes
        self.learner = Learner(model, optimiser, MAX_GRADIENT, self.processes)
        self.average = WeightAverage(model)
        self.checkpoint = out / WORK / "checkpoint.safetensors"
        found = load_checkpoint(self.checkpoint, self.average, {"model": self.learner})
        self.step = found.numbers["step"] if found else 0
        self.autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=device.type == "cuda" and pick_dtype(device) == torch.bfloat16
        )

    def steps(self) -> Iterator[TrainProgress]:
        """The steps that are left."""
        first, config = self.processes.first, self.config
        with ExitStack() as stack:
            log = TrainingLog(self.out, self.step, config.batch, config.tensorboard) if first else None
            if log is not None:
                stack.callback(log.close)
            for batch in stack.enter_context(closing(self.batches.from_step(self.step, config.steps))):
                rate = self.learning_rate
                loss = self._step(batch)
                if log is not None and (self.step % LOG_EVERY == 0 or self.step == config.steps):
                    log.add(self.step, loss, rate)
                if first and self.step % config.save_every == 0:
                    save_checkpoint(self.checkpoint, self.average, {"model": self.learner}, {"step": self.step})
                yield TrainProgress(self.step, config.steps, loss)

    def _step(self, batch: Batch[Any]) -> float:
        """One optimiser step; random numbers depend on the seed, the step's number and the process only."""
        seed = (self.config.seed * 1_000_003 + self.processes.rank * 500_009 + self.step) % 2**31
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
        return float(self.processes.mean(loss.detach()))

    @property
    def learning_rate(self) -> float:
        """Of the next step: it rises, then falls as a cosine."""
        factor = warm_up(self.step, self.config.warm_up) * cosine(self.step / self.config.steps)
        return self.config.learning_rate * factor
