"""What commands say at their end: what they made, images per label, and a command that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasetdm.cli import main
from datasetdm.errors import DataError
from datasetdm.exporters import EXPORTERS
from datasetdm.readers import read
from datasetdm.recipe.evaluating import evaluate
from datasetdm.recipe.outputs import export
from datasetdm.recipe.schema import EvaluateStage, ExportStage
from datasetdm.store.writer import write_store
from factory import LABELS, make_sample
from labelled import depth_folder, masks_folder, save, write
from sources import save_decoder

FOREIGN = {"cvat", "fiftyone", "label-studio", "webdataset", "yolo-pose"}
"""Formats that are written and not read; and one that wants points, which these samples lack."""


@pytest.mark.parametrize("parts", [{}, {"train": 0.5, "val": 0.5}])
@pytest.mark.parametrize("format", sorted({*EXPORTERS} - FOREIGN))
def test_what_an_export_says_to_inspect_can_be_read(format: str, parts: dict[str, float], tmp_path: Path) -> None:
    write_store([make_sample(f"k{i}", (24, 24), i) for i in range(6)], tmp_path / "s", LABELS)
    stage = ExportStage(data=str(tmp_path / "s"), format=format, split=parts)
    outcome = export(stage, tmp_path / "out", lambda _: None)
    assert outcome.labels and outcome.next.startswith("datasetdm inspect ")
    found = len(list(read(outcome.next.removeprefix("datasetdm inspect "))))
    assert 0 < found < 6 if parts else found == 6


def test_inspect_ends_with_notes_and_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One label and nothing else is a constant, and is called so."""
    folder = masks_folder(tmp_path, {"cracks": 1, "ignore": [0, 255]})
    with pytest.raises(SystemExit):
        main(["inspect", f"masks:{folder}"])
    told = capsys.readouterr()
    assert "one label only (cracks) and no background" in " ".join(told.out.split())
    assert f"next: datasetdm fit --data masks:{folder} --out DIR" in told.err


def test_a_folder_whose_name_is_not_utf8_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it is written, so nothing is wrong; the title shows what can be shown."""
    folder = masks_folder(tmp_path / "a")
    odd = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    folder.rename(odd)
    with pytest.raises(SystemExit) as end:
        main(["inspect", f"images:{odd / 'images'}"])
    assert end.value.code == 0 and "2 images" in capsys.readouterr().out


def test_labels_match_by_name_before_a_backbone_is_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    decoder = str(save_decoder(tmp_path / "decoder", tiny_folder))
    shuffled = {n.upper(): i for i, n in enumerate(reversed(LABELS.names))}
    masks = masks_folder(tmp_path / "m", shuffled)
    for path in (masks / "masks").rglob("*.png"):
        save(path, (np.arange(600).reshape(20, 30) % len(LABELS)).astype(np.uint8))
    stage = EvaluateStage(data=f"masks:{masks}", decoder=decoder, device="cpu", captions=False)
    outcome = evaluate(stage, None, lambda _: None)
    assert "semantic" in outcome.figures and set(outcome.labels) == {n.upper() for n in LABELS.names}
    write(masks / "classes.json", {n if n != "dog" else "pug": i for i, n in enumerate(LABELS.names)})
    other = stage.model_copy(update={"backbone": "no/such/backbone"})
    with pytest.raises(DataError, match="only the data have pug; only the decoder has dog") as caught:
        evaluate(other, None, lambda _: None)
    assert "remap-labels" in str(caught.value)


def test_nothing_to_measure_says_what_both_sides_have(tiny_folder: Path, tmp_path: Path) -> None:
    decoder = str(save_decoder(tmp_path / "decoder", tiny_folder))
    depth_folder(tmp_path / "d", "rgb/1.png", "depth/1.png")
    stage = EvaluateStage(data=f"nyu:{tmp_path / 'd'}", decoder=decoder, device="cpu")
    with pytest.raises(DataError, match="nothing to measure") as caught:
        evaluate(stage, None, lambda _: None)
    assert "semantic; the data have depth on 1 images" in str(caught.value)
