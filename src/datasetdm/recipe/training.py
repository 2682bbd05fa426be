"""The kind of stage that trains an ordinary model."""

from __future__ import annotations

from pathlib import Path

from datasetdm.downstream import STUDENTS
from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import choose_variant, iter_train
from datasetdm.recipe import places
from datasetdm.recipe.data import open_data
from datasetdm.recipe.schema import DataOptions, TrainStage


def check_student(stage: TrainStage) -> None:
    """Raises ConfigError for an unknown student or variant."""
    choose_variant(STUDENTS.load(stage.student), stage.variant)


def train(stage: TrainStage, out: Path, report: Report) -> Outcome:
    """Train an ordinary model into a new folder, or go on with the same training."""
    places.require_folder(out, places.WORK)
    check_student(stage)
    data = open_data(stage.data, stage, stage.seed)
    synthetic = None
    if stage.synthetic is not None:
        options = DataOptions(
            on_error=stage.on_error, limit=stage.synthetic_limit, transforms=stage.synthetic_transforms
        )
        synthetic = open_data(stage.synthetic, options, stage.seed)
    unlabelled = None
    if stage.self_training is not None:
        unlabelled = open_data(stage.self_training, DataOptions(on_error=stage.on_error), stage.seed)
    config = TrainConfig(**{name: getattr(stage, name) for name in TrainConfig.model_fields})
    loss = float("nan")
    for event in iter_train(
        data, out, synthetic=synthetic, self_training=unlabelled, config=config, device=stage.device
    ):
        report(Progress("train", event.done, event.total, "step"))
        loss = event.loss
    more = "" if synthetic is None else f" and {len(synthetic)} synthetic ones"
    more += "" if unlabelled is None else f" and {len(unlabelled)} without labels"
    skipped = tuple(s for part in (data, synthetic, unlabelled) if part is not None for s in part.reader.skipped)
    return Outcome(
        out,
        f"a {stage.student} trained on {len(data)} images{more}, last loss {loss:.3f}",
        len(data),
        skipped=skipped,
        next=f"datasetdm evaluate --model {out} --data DATA",
    )
