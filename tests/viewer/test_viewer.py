from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from datasetdm.records import DepthMap, Labels, Prompt, Sample, SemanticMap
from datasetdm.viewer import paint
from datasetdm.viewer.gallery import write_gallery
from datasetdm.viewer.payloads import LayerName
from factory import LABELS, make_sample


def page(samples: list[Sample], labels: Labels, path: Path) -> str:
    assert sum(1 for _ in write_gallery(samples, labels, path, "title")) == len(samples)
    return path.read_text()


def test_page_has_every_layer_and_nothing_external(samples: list[Sample], tmp_path: Path) -> None:
    html = page(samples, LABELS, tmp_path / "g.html")
    for layer in LayerName:
        assert f'data-layer="{layer}"' in html
    assert html.count("<figure") == len(samples)
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:)[a-z]+:""", html)
    assert "default-src 'none'" in html and "http" not in html.replace("http-equiv", "")


def test_only_layers_that_exist_are_switched(tmp_path: Path) -> None:
    sample = make_sample()
    bare = Sample("k", sample.image, LABELS, depth=sample.depth)
    html = page([bare], LABELS, tmp_path / "g.html")
    assert 'data-layer="depth"' in html and 'data-layer="semantic"' not in html


def test_markup_is_shown_not_run(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    labels = Labels((evil, "dog", "grass"))
    sample = make_sample(evil)
    hostile = Sample(evil, sample.image, labels, Prompt(evil, (evil,)), **sample.annotations.fields())
    html = page([hostile], labels, tmp_path / "g.html")
    assert "<script>alert" not in html and "<img src=x" not in html
    assert html.count("<script>") == 1


def test_colours_are_apart() -> None:
    colours = paint.label_colours(Labels(tuple(f"label {i}" for i in range(30)))).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(30, dtype=int)
    assert apart.min() > 30


def test_overlays() -> None:
    sample = make_sample()
    colours = paint.label_colours(LABELS)
    semantic = sample.semantic
    assert np.array_equal(paint.paint_semantic(semantic, colours)[..., :3], colours[semantic.ids])
    certain = SemanticMap(semantic.ids, np.ones(semantic.size))
    assert paint.paint_uncertainty(certain)[..., 3].max() == 0
    far = sample.depth
    assert far is not None and far.confidence is not None
    uncertain = paint.paint_uncertainty(far)[..., 3]
    assert np.array_equal(uncertain > 127, far.valid & (far.confidence < 0.5)) and not uncertain[~far.valid].any()
    depth = paint.paint_depth(sample.depth)
    valid = sample.depth.valid
    assert (depth[..., 3] == np.where(valid, 255, 0)).all()
    near, far = depth[-1, 0, :3].astype(int).sum(), depth[13, 0, :3].astype(int).sum()
    assert near > far
    nothing = DepthMap(np.zeros((2, 2)), np.zeros((2, 2), bool))
    assert paint.paint_depth(nothing)[..., 3].max() == 0


@pytest.mark.parametrize("size", [(3, 50), (50, 3), (1, 1)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    ids = np.zeros(size, np.uint16)
    sample = Sample("k", np.zeros((*size, 3), np.uint8), LABELS, semantic=SemanticMap(ids))
    assert f'width="{size[1]}"' in page([sample], LABELS, tmp_path / "g.html")
