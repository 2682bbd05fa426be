"""What an edited image was before, and the command that edits what is shown."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasetdm.records import Provenance, Sample
from datasetdm.store import Store, write_store
from datasetdm.viewer.edits import edit_command
from factory import LABELS, make_sample
from served import Client, serving


def edited(parent: Sample, digest: str) -> Sample:
    made = Provenance(details={"parent": parent.key, "parent_sha256": digest})
    return replace(parent, key=f"{parent.key}-x", image=255 - parent.image, provenance=made)


@pytest.fixture(scope="module")
def parents() -> list[Sample]:
    return [make_sample(f"s{i}", (8, 12), i) for i in range(3)]


@pytest.fixture
def stores(parents: list[Sample], tmp_path: Path) -> Path:
    """The parents; and of two of them edited images, of a third one that says it had another parent, and one that nobody edited."""
    write_store(parents, tmp_path / "old", LABELS)
    rows = [
        edited(parents[1], parents[1].digest()),
        edited(parents[0], parents[0].digest()),
        edited(parents[2], "0" * 64),
        parents[2],
    ]
    write_store(rows, tmp_path / "new", LABELS)
    return tmp_path


@pytest.fixture
def shown(stores: Path) -> Iterator[Client]:
    with serving(stores / "new", before=stores / "old") as client:
        yield client


def test_the_image_before_an_edit_is_shown(shown: Client, parents: list[Sample]) -> None:
    for row, parent in ((0, parents[1]), (1, parents[0])):
        assert shown.get(f"/api/sample/{row}")["before"] is True
        content = shown.ask(f"/image/{row}/before").body
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), parent.image)
    assert shown.get("/api/sample/3")["before"] is False
    for row in (2, 3):  # another parent, none
        assert shown.ask(f"/image/{row}/before").status == 400


def test_without_the_parents_store_nothing_is_shown(stores: Path) -> None:
    with serving(stores / "new") as client:
        assert client.get("/api/sample/0")["before"] is False and client.ask("/image/0/before").status == 400


def test_the_command_for_a_word(shown: Client, stores: Path) -> None:
    """It comes back as the very words, whatever they hold."""
    for word in ("cat", "a 'big' cat; rm -rf $HOME", "<b>"):
        command = shlex.split(shown.get("/api/edit", old="dog", new=word)["command"])
        new = str(stores / "new")
        assert command == ["datasetdm", "edit", new, "--replace", f"dog={word}", "--out", f"{new}-edited"]
    for old, new in (("ghost", "cat"), ("dog", " "), ("dog", "a=b"), ("dog", "a,b")):
        assert shown.ask(f"/api/edit?old={old}&new={new.replace(' ', '%20')}").status == 400
    assert "--replace dog=cat" in edit_command(Store(stores / "new"), "dog", "cat")
