"""The kind of stage that trains an ordinary model."""

from __future__ import annotations

from pathlib import Path

from datasetdm.downstream.files import read_story
from datasetdm.engines.progress import Outcome, Progress, Report
from datasetdm.pipelines.settings import TrainConfig
from datasetdm.pipelines.train import choose_student, iter_train
from datasetdm.recipe import places
from datasetdm.recipe.data import StageData, open_data, strange_labels
from datasetdm.recipe.schema import DataOptions, TrainStage


def check_student(stage: TrainStage) -> None:
    """Raises ConfigError for an unknown student or variant, or a setting that this student would not heed."""
    choose_student(_config(stage), bool(stage.self_training))


def _config(stage: TrainStage) -> TrainConfig:
    return TrainConfig(**{name: getattr(stage, name) for name in TrainConfig.model_fields})


def train(stage: TrainStage, out: Path, report: Report) -> Outcome:
    """Train an ordinary model into a new folder, or go on with the same training."""
    places.require_folder(out, places.WORK)
    check_student(stage)
    common = DataOptions(on_error=stage.on_error)
    more = common.model_copy(update={"limit": stage.synthetic_limit, "transforms": stage.synthetic_transforms})
    data = [open_data(d, stage, stage.seed) for d in stage.data]
    synthetic = [open_data(d, more, stage.seed) for d in stage.synthetic]
    unlabelled = [open_data(d, common, stage.seed) for d in stage.self_training]
    loss = float("nan")
    for event in iter_train(
        data,
        out,
        synthetic=synthetic or None,
        self_training=unlabelled or None,
        config=_config(stage),
        device=stage.device,
    ):
        report(Progress("train", event.done, event.total, "step"))
        loss = event.loss
    story = read_story(out)["trained"]
    images, made, others = (story[f"{part}images"] for part in ("", "synthetic_", "unlabelled_"))
    words = f" and {made} synthetic ones" if made else ""
    words += f" and {others} without labels" if others else ""
    return Outcome(
        out,
        f"a {stage.student} trained on {images} images{words}, last loss {loss:.3f}",
        images,
        notes=_label_notes(stage, data, synthetic),
        skipped=tuple(s for part in (*data, *synthetic, *unlabelled) for s in part.reader.skipped),
        next=f"datasetdm evaluate --model {out} --data DATA",
    )


def _label_notes(stage: TrainStage, data: list[StageData], synthetic: list[StageData]) -> list[str]:
    """Labels of further data that the model does not learn."""
    own, names = data[0].labels, (*stage.data[1:], *stage.synthetic)
    if not choose_student(_config(stage), False)[0](own).by_label:
        return []
    odd = {name: strange_labels(d.labels, own) for name, d in zip(names, (*data[1:], *synthetic), strict=True)}
    return [f"labels of {name} that are ignored, because {stage.data[0]} has none of this name: {found}"
            for name, found in odd.items() if found]  # fmt: skip
