"""Corrections of Label Studio and CVAT come back as reviews."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from commands import run
from datasetdm.errors import ConfigError, DataError
from datasetdm.exporters import export
from datasetdm.recipe.corrections import read_corrections
from datasetdm.records import Labels, Skeleton
from datasetdm.store import Review, Store, append_review, read_reviews, write_store
from factory import make_sample

POSED = Labels(("sky", "dog", "grass"), (), ("sky", "grass"), {"dog": Skeleton(("nose", "tail"), ((0, 1),))})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    write_store([make_sample(f"s{i}.x", seed=i, labels=POSED) for i in range(5)], tmp_path / "store", POSED)
    return Store(tmp_path / "store")


def tasks(store: Store, out: Path) -> list[dict[str, Any]]:
    """What Label Studio gives back of tasks whose predictions nobody changed."""
    export(store, "label-studio", out)
    found = json.loads((out / "tasks.json").read_text())
    return [t | {"id": n, "annotations": [{"result": t["predictions"][0]["result"]}]} for n, t in enumerate(found)]


def test_label_studio(store: Store, tmp_path: Path) -> None:
    """Nothing, a label, a redrawn shape, a skipped task, a task that nobody saw; ids and roundings are the tool's own."""
    found = tasks(store, tmp_path / "ls")
    assert {r["type"] for r in found[1]["annotations"][0]["result"]} == {"brushlabels", "keypointlabels"}
    for region in found[1]["annotations"][0]["result"]:
        region["id"] = "Xy1"
        if region["type"] == "brushlabels":
            region["value"]["brushlabels"] = ["grass"]
        else:
            region["value"]["x"] += 0.004
    found[2]["annotations"][0]["result"][0]["value"]["rle"][-1] ^= 64
    found[3]["annotations"] = [{"was_cancelled": True, "result": []}]
    found[4]["annotations"] = []
    (tmp_path / "back.json").write_text(json.dumps(found))
    assert list(read_corrections(store, tmp_path / "back.json")) == [
        Review("s0.x", "accept"),
        Review("s1.x", "accept", objects={0: "grass"}),
        Review("s2.x", "reject", "shapes were redrawn or deleted"),
        Review("s3.x", "reject", "skipped in Label Studio"),
    ]


def test_cvat(store: Store, tmp_path: Path) -> None:
    """A label that was fixed after an earlier fix, an added shape; of the others nobody says whether they were seen."""
    append_review(store.folder, Review("s1.x", objects={0: "sky"}))
    export(store, "cvat", tmp_path / "cvat")
    tree = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    images = {node.attrib["name"]: node for node in tree.iter("image")}
    images["s1.x.png"][0].set("label", "grass")
    added = ElementTree.SubElement(images["s2.x.png"], "box", label="dog", xtl="1", ytl="1", xbr="3", ybr="4")
    added.set("source", "manual")
    tree.write(tmp_path / "annotations.xml")
    with zipfile.ZipFile(tmp_path / "back.zip", "w") as archive:
        archive.write(tmp_path / "annotations.xml", "annotations.xml")
    for name in ("annotations.xml", "back.zip"):
        assert list(read_corrections(store, tmp_path / name)) == [
            Review("s1.x", "accept", objects={0: "grass"}),
            Review("s2.x", "reject", "shapes were added"),
        ]


def test_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tasks(store, tmp_path / "ls")
    found[0]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["grass"]
    (tmp_path / "back.json").write_text(json.dumps(found))
    words = ["merge", str(store.folder), "--reviews", str(tmp_path / "back.json"), "--out", str(tmp_path / "out")]
    assert run(*words) == 0 and "5 reviews: 0 reject, 1 fix labels" in capsys.readouterr().err
    assert read_reviews(tmp_path / "out")["s0.x"].objects == {0: "grass"} and not read_reviews(store.folder)
    assert run("merge", str(store.folder), *words[1:]) == 2


def test_what_is_refused(store: Store, tmp_path: Path) -> None:
    found = tasks(store, tmp_path / "ls")
    bad = tmp_path / "bad.json"
    for change, error in (("key", "no sample 'other'"), ("label", "unknown label"), ("none", "no export of")):
        changed = json.loads(json.dumps(found))
        if change == "key":
            changed[0]["data"]["key"] = "other"
        elif change == "label":
            changed[0]["annotations"][0]["result"][0]["value"]["brushlabels"] = ["cow"]
        else:
            changed = [{"data": 3}]
        bad.write_text(json.dumps(changed))
        with pytest.raises((DataError, ConfigError), match=error):
            list(read_corrections(store, bad))
    (tmp_path / "bad.xml").write_text("<annotations>")
    with pytest.raises(DataError, match="no export of"):
        list(read_corrections(store, tmp_path / "bad.xml"))
