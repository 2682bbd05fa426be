"""What is compared: tables, and the rows of each."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    title: str
    data: str = LABELLED
    more: str | None = None


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
}
"""Most important first: the order in which missing rows are measured."""


@dataclass(frozen=True)
class Table:
    """Rows of one task.

    Args:
        title: what the page calls it.
        metric: of the task, fractions 0 to 1.
        needs: what has to be written before a row can be measured; empty if nothing.
    """

    title: str
    metric: str
    needs: str = ""


TABLES: dict[str, Table] = {
    "semantic": Table("Semantic segmentation, student from scratch", "mIoU"),
    "semantic_pretrained": Table(
        "Semantic segmentation, pretrained encoder", "mIoU", "a SegFormer encoder pretrained on the captions' words"
    ),
    "instance": Table("Instance segmentation", "AP", "rows with the student mask2former"),
    "depth": Table("Depth", "AbsRel", "rows with the student glpn"),
    "pose": Table("Keypoints", "OKS AP", "rows with a student for keypoints"),
    "zero_shot": Table("Labels without labelled images", "harmonic mIoU", "a split of the labels into seen and unseen"),
    "long_tail": Table("Rare categories", "mIoU of rare labels", "labelled images with one to three per rare category"),
    "shift": Table("Night, fog and snow", "mIoU", "at least 150 test renders of each condition"),
}
