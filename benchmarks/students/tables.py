"""What is compared: tables, and the rows of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.students.figures import AbsRel, HarmonicIoU, Judge, MeanIoU, ObjectAP, PointAP
from benchmarks.students.renders import CONDITIONS
from benchmarks.students.scenarios import HIDDEN, LONG_TAIL, PLAIN, RARE, SEEN, SHIFT, ZERO_SHOT, Scenario
from datasetdm.pipelines.settings import TrainConfig

LABELLED, ALL = "labelled", "all_labelled"
GENERATED, FILTERED, ORACLE, ATTENTION = "generated", "generated_filtered", "generated_oracle", "generated_attention"
PSEUDO_GENERATED, PSEUDO_RENDERS = "generated_pseudo", "renders_pseudo"
RENDERS, DECODED_RENDERS = "renders", "renders_decoder"
PSEUDO = (PSEUDO_GENERATED, PSEUDO_RENDERS)
"""Parts of the data; see `data.py`. Those in PSEUDO are labelled by the student of the row `real` with the same seed."""

REAL = "real"
"""The row that every other one is compared with."""


@dataclass(frozen=True)
class Row:
    """A mix of data to learn from.

    Args:
        title: what the page calls it.
        data: the part whose labels the student learns.
        more: a second part, which fills half of every batch.
        unlabelled: a part whose images alone are used, by self-training while the student learns.
    """

    title: str
    data: str = LABELLED
    more: str | None = None
    unlabelled: str | None = None

    @property
    def parts(self) -> list[str]:
        """All that it needs."""
        return [part for part in (self.data, self.more, self.unlabelled) if part is not None]


ROWS: dict[str, Row] = {
    REAL: Row("real only: 100 labelled images"),
    "both": Row("both: real, and generated with the P-Decoder's labels", more=GENERATED),
    "self_training": Row("real, and renders with pseudo-labels of a student of real only", more=PSEUDO_RENDERS),
    "truth_on_generated": Row("real, and generated with the oracle's labels", more=ORACLE),
    "true_renders": Row("real, and renders with true labels", more=RENDERS),
    "decoder_on_renders": Row("real, and renders with the P-Decoder's labels", more=DECODED_RENDERS),
    "both_filtered": Row("both, generated ones filtered", more=FILTERED),
    "pseudo_generated": Row("real, and generated with pseudo-labels of a student of real only", more=PSEUDO_GENERATED),
    "synthetic": Row("synthetic only: generated with the P-Decoder's labels", data=GENERATED),
    "upper": Row("1,000 real labels", data=ALL),
    "attention": Row("real, and generated with labels by cross-attention alone", more=ATTENTION),
    "consistency": Row("real, and unlabelled renders by self-training while it learns", unlabelled=RENDERS),
}
"""Most important first: the order in which missing rows are measured."""

ONLY_SEMANTIC = {
    "self_training": "a threshold for pseudo-labels of this task would have to be chosen",
    "pseudo_generated": "a threshold for pseudo-labels of this task would have to be chosen",
    "truth_on_generated": "the oracle labels pixels only",
    "attention": "attention labels pixels only",
    "consistency": "only the student of pixels can train itself",
}
"""Rows that tables of other tasks do not have, and why."""


@dataclass(frozen=True)
class Settings:
    """Equal for all rows of a table.

    Args:
        steps: of the student that is measured.
        trial_steps: of the students by which the learning rate is chosen on val.
        learning_rates: the candidates; one alone is not tried.
        fraction: of every batch that comes from a row's second part.
        size: side of the images that the student sees; None is its variant's.
    """

    steps: int = 1000
    trial_steps: int = 100
    learning_rates: tuple[float, ...] = (8e-3,)
    batch: int = 16
    fraction: float = 0.5
    variant: str = "tiny"
    size: int | None = None

    def config(
        self, learning_rate: float, steps: int, seed: int, student: str = "segformer", encoder: Path | None = None
    ) -> TrainConfig:
        """Of one training."""
        return TrainConfig(
            student=student,
            encoder=None if encoder is None else str(encoder),
            variant=self.variant,
            size=self.size,
            steps=steps,
            batch=self.batch,
            learning_rate=learning_rate,
            synthetic_fraction=self.fraction,
            seed=seed,
        )


@dataclass(frozen=True)
class Table:
    """Rows of one task.

    Args:
        title: what the page calls it.
        judge: who makes the figure, from the test renders.
        student: of `datasetdm.downstream`.
        settings: of its trainings.
        chooses: who makes the figure by which a learning rate is chosen on val; None is `judge`.
        scenario: which images are labelled, and what is tested on.
        pretrained: whether the encoder was pretrained on words of captions; see `pretrain.py`.
        left_out: rows that it does not have, and why.
        seeds: over which figures are averaged.
        target: of the gain, in words.
    """

    title: str
    judge: Judge
    student: str = "segformer"
    settings: Settings = Settings()
    chooses: Judge | None = None
    scenario: Scenario = PLAIN
    pretrained: bool = False
    left_out: Sequence[tuple[str, str]] = ()
    seeds: int = 2
    target: str = ""

    @property
    def metric(self) -> str:
        """What the figure is called; fractions 0 to 1."""
        return self.judge.metric

    @property
    def rows(self) -> dict[str, Row]:
        """The rows that it has, most important first."""
        return {name: row for name, row in ROWS.items() if name not in dict(self.left_out)}

    def story(self) -> dict[str, Any]:
        """What its figures depend on beside data and settings, JSON-ready; nothing in the plain semantic table."""
        value: dict[str, Any] = {} if self.student == "segformer" else {"student": self.student}
        judges = {"judge": self.judge.metric, "chooses": self.chooses.metric} if self.chooses else {}
        return value | judges


_OTHER_TASK = (*ONLY_SEMANTIC.items(),)
_GENTLE = Settings(learning_rates=(3e-3,))
"""Of a pretrained encoder."""
_SHORT = Settings(steps=500, learning_rates=(3e-3,))

TABLES: dict[str, Table] = {
    "semantic": Table(
        "Semantic segmentation, student from scratch",
        MeanIoU(),
        seeds=3,
        target="at least +13.3 points over real only, and `both` at least 2 over `self_training` and 10 over `attention`",
    ),
    "semantic_pretrained": Table(
        "Semantic segmentation, pretrained encoder",
        MeanIoU(),
        settings=_GENTLE,
        pretrained=True,
        seeds=3,
        target="at least +5 points, and `both` at least 2 over `self_training`",
    ),
    "instance": Table(
        "Instance segmentation",
        ObjectAP(),
        "mask2former",
        Settings(steps=3000, learning_rates=(1e-3,), batch=4, size=64),
        left_out=_OTHER_TASK,
        target="at least +12.1 points, or 1.8 times the AP",
    ),
    "depth": Table(
        "Depth",
        AbsRel(),
        "glpn",
        Settings(steps=2000, learning_rates=(2e-3,), size=64),
        pretrained=True,
        left_out=_OTHER_TASK,
        target="at most 0.8 times the AbsRel of real only",
    ),
    "pose": Table(
        "Keypoints of given objects",
        PointAP(),
        "vitpose",
        Settings(steps=2000, trial_steps=200, learning_rates=(5e-4, 1e-3, 2e-3)),
        left_out=_OTHER_TASK,
        target="at least +5 points",
    ),
    "zero_shot": Table(
        "Labels without labelled images",
        HarmonicIoU(names=SEEN, unseen=HIDDEN),
        settings=_SHORT,
        pretrained=True,
        chooses=MeanIoU("mIoU of seen labels", SEEN),
        scenario=ZERO_SHOT,
        left_out=[
            (name, "its teacher knows no unseen label") for name in ("self_training", "pseudo_generated", "consistency")
        ],
        target="a harmonic mean of at least 0.35, and 10 points over `attention`",
    ),
    "long_tail": Table(
        "Rare categories",
        MeanIoU("mIoU of rare labels", RARE),
        settings=_SHORT,
        pretrained=True,
        chooses=MeanIoU(),
        scenario=LONG_TAIL,
        target="at least +10 points",
    ),
    "shift": Table(
        "Night, fog and snow",
        MeanIoU(groups=CONDITIONS),
        settings=_SHORT,
        pretrained=True,
        scenario=SHIFT,
        target="at least +10 points",
    ),
}
