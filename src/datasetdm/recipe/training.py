"""The stages of ordinary models: training one, and measuring it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasetdm.downstream import STUDENTS
from datasetdm.downstream.files import TrainedModel
from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.io.files import write_json
from datasetdm.pipelines.evaluate import evaluate_model
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import choose_variant, iter_train
from datasetdm.recipe import places
from datasetdm.recipe.data import StageData, open_data
from datasetdm.recipe.schema import DataOptions, EvaluateStage, TrainStage
from datasetdm.records import Sample


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
    config = TrainConfig(**{name: getattr(stage, name) for name in TrainConfig.model_fields})
    loss = float("nan")
    for event in iter_train(data, out, synthetic=synthetic, config=config, device=stage.device):
        report(Progress("train", event.done, event.total, "step"))
        loss = event.loss
    more = "" if synthetic is None else f" and {len(synthetic)} synthetic ones"
    skipped = (*data.reader.skipped, *(() if synthetic is None else synthetic.reader.skipped))
    return Outcome(
        out,
        f"a {stage.student} trained on {len(data)} images{more}, last loss {loss:.3f}",
        len(data),
        skipped=skipped,
        next=f"datasetdm evaluate --model {out} --data DATA",
    )


def evaluate_trained(stage: EvaluateStage, data: StageData, out: Path | None, report: Report) -> Outcome:
    """Measure a trained model; the figures go into the folder, too, if there is one."""
    assert stage.model is not None
    trained = TrainedModel.load(stage.model, stage.device)

    def reported() -> Iterator[Sample]:
        for done, sample in enumerate(data, 1):
            yield sample
            report(Progress("evaluate", done, len(data)))

    figures = evaluate_model(trained, reported(), data.labels)
    if out is not None:
        write_json(out / places.FIGURES, figures)
    made = f"figures of {stage.model} on {len(data)} images"
    return Outcome(out or Path(), made, len(data), figures=figures, skipped=data.reader.skipped)
