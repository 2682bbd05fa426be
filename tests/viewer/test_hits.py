"""The page of hits and misses: bounded, worst first, one file, and nothing in it runs."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasetdm.records import Instances, Labels, Prompt, Sample
from datasetdm.viewer.hits import MIN_SCORE, SIDE, HitsAndMisses
from factory import LABELS, make_sample


def written(page: HitsAndMisses, path: Path) -> str:
    page.write(path, "title")
    return path.read_text()


def keys(html: str) -> list[str]:
    return re.findall(r'class="small">(k\d+)', html)


def test_the_worst_and_the_best_in_their_order(tmp_path: Path) -> None:
    page = HitsAndMisses(LABELS, 2)
    values = [0.5, 0.9, 0.1, 0.5, 0.3, 0.7]
    for i, value in enumerate(values):
        sample = make_sample(f"k{i}", (12, 16), i)
        page.add(sample, sample, {"a": value, "b": value})
    page.add(make_sample("k9"), make_sample("k9"), {})
    html = written(page, tmp_path / "h.html")
    assert keys(html) == ["k2", "k4", "k1", "k5"] and "The worst 2 of 6 images" in html


def test_no_image_is_there_twice(tmp_path: Path) -> None:
    page = HitsAndMisses(LABELS, 5)
    for i in range(3):
        page.add(make_sample(f"k{i}", (12, 16)), make_sample(f"k{i}", (12, 16)), {"a": 0.5})
    html = written(page, tmp_path / "h.html")
    assert keys(html) == ["k0", "k1", "k2"] and "The best" not in html


def test_every_layer_is_there_and_nothing_external(tmp_path: Path) -> None:
    page = HitsAndMisses(LABELS, 2)
    true = make_sample("k0")
    page.add(true, true, {"a": 0.5})
    html = written(page, tmp_path / "h.html")
    assert all(f'data-layer="{n}"' in html for n in ("semantic", "instance", "depth", "keypoints"))
    assert html.count("<path") == 2 and html.count("<circle") == 2 and "dog 0.75" in html
    assert "default-src 'none'" in html and "http" not in html.replace("http-equiv", "")
    unsure = replace(true, instances=replace(true.instances, scores=[MIN_SCORE - 0.1]))
    page = HitsAndMisses(LABELS, 2)
    page.add(true, unsure, {"a": 0.5})
    html = written(page, tmp_path / "h.html")
    assert html.count("<path") == html.count("<circle") == 1, "objects of a low score are not shown"


def test_what_was_not_predicted_is_not_shown(tmp_path: Path) -> None:
    page, true = HitsAndMisses(LABELS, 2), make_sample("k0")
    page.add(true, Sample("k0", true.image, LABELS, instances=true.instances), {"a": 0.5})
    html = written(page, tmp_path / "h.html")
    assert re.findall(r'data-layer="(\w+)"', html) == ["instance"]


def test_markup_is_shown_not_run(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    sample = make_sample("k0")
    hostile = Sample(evil, sample.image, Labels((evil, "dog", "grass")), Prompt(evil), **sample.annotations.fields())
    page = HitsAndMisses(hostile.labels, 1)
    page.add(hostile, hostile, {"a": 0.5})
    html = written(page, tmp_path / "h.html")
    assert "<script>alert" not in html and "<img src=x" not in html and html.count("<script>") == 1


def test_memory_does_not_grow_with_the_images() -> None:
    """Each is worse than those before, so each is on the page for a while; full images would take 60 MB."""
    page, size = HitsAndMisses(LABELS, 2), (1000, 1000)
    sample = Sample("k", np.zeros((*size, 3), np.uint8), LABELS, instances=Instances.none(size))
    tracemalloc.start()
    for i in range(20):
        page.add(replace(sample, image=np.full((*size, 3), i, np.uint8)), sample, {"a": 1 - i / 20})
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1e6 and peak < 10e6 and SIDE < 500


@pytest.mark.parametrize("size", [(3, 50), (50, 3), (1, 1)])
def test_odd_sizes(size: tuple[int, int], tmp_path: Path) -> None:
    sample = Sample("k0", np.zeros((*size, 3), np.uint8), LABELS)
    page = HitsAndMisses(LABELS, 1)
    page.add(sample, sample, {"a": 0.0})
    assert f'width="{size[1]}"' in written(page, tmp_path / "h.html")
