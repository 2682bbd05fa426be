"""The command lines: errors are one clear message, and what is rendered can be packed and verified."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from miniworld import WORLD_VERSION, pack, render, verify


@pytest.mark.parametrize(
    "arguments", [["out", "nosuch", "0", "1"], ["out", "train", "-1", "1"], ["out", "train", "0", "0"], ["out"]]
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        render.main(arguments)
    assert exit_.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_nothing_to_pack(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no train-\*\.tar"):
        pack.main([str(tmp_path), str(tmp_path / "out"), "train"])


def test_render_pack_verify(renderer, tmp_path, capsys):
    tars, folders = tmp_path / "tars", tmp_path / "folders"
    render.main([str(tars), "train", "0", "2", "--spp", "4"])
    tar = tars / "train-000000.tar"
    with tarfile.open(tar) as opened:
        opened.extractall(folders / "train-000000", filter="data")
    for source in (tars, folders):
        pack.main([str(source), str(tmp_path / f"from-{source.name}"), "train"])
    tables = [pq.read_table(tmp_path / f"from-{source.name}" / "train-000000.parquet") for source in (tars, folders)]
    assert tables[0].equals(tables[1])
    assert tables[0].schema.metadata == {b"world_version": str(WORLD_VERSION).encode()}
    assert tables[0].schema.names == pack.SCHEMA.names
    row = tables[0].to_pylist()[1]
    assert row["key"] == "train-000001"
    assert np.array(Image.open(io.BytesIO(row["image"]))).shape == (128, 128, 3)
    assert np.array(Image.open(io.BytesIO(row["depth"]))).dtype == np.uint16
    assert json.loads(row["objects"])[0]["id"] == 1

    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        verify.main([str(tmp_path / "from-tars" / "train-000000.parquet"), "--spp", "4"])
    assert exit_.value.code == 0
    assert "2 samples: 0 with other words" in capsys.readouterr().out


def test_missing_llvm_says_what_to_install(renderer, monkeypatch, tmp_path):
    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    monkeypatch.setattr(renderer, "LIBRARIES", tmp_path)
    with pytest.raises(renderer.MissingLibraryError, match="apt-get install -y libllvm19"):
        renderer._point_to_llvm()
