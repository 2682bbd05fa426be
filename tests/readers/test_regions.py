"""Run lengths from boxes and label maps, and how they are painted: equal to what dense masks give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from datasetdm.readers.regions import Region, box_runs, from_regions, paint, value_runs
from datasetdm.records import IGNORE, Labels, MaskStack
from datasetdm.records.objects import decode_runs, encode_runs
from labelled import noise_image, write

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


@given(arrays(np.uint16, SHAPES, elements=st.integers(0, 3)))
def test_every_value_of_a_map_as_run_lengths(numbers: np.ndarray) -> None:
    runs = value_runs(numbers)
    assert set(runs) == set(np.unique(numbers).tolist())
    masks = MaskStack(runs.values(), numbers.shape)
    for value, own in zip(runs, masks.runs, strict=True):
        assert np.array_equal(own, encode_runs(numbers == value))


@given(arrays(np.bool_, SHAPES), st.data())
def test_empty_runs_do_not_change_a_mask(mask: np.ndarray, data: st.DataObject) -> None:
    """Two empty runs anywhere, and one at the end of a mask that ends with it."""
    runs = encode_runs(mask).tolist()
    place = data.draw(st.integers(0, len(runs)))
    odd = [*runs[:place], 0, 0, *runs[place:]]
    assert np.array_equal(MaskStack([odd], mask.shape).runs[0], encode_runs(mask))
    assert np.array_equal(decode_runs(np.array(odd), mask.shape), mask)


@given(*[st.floats(-3, 15)] * 4)
def test_boxes_as_run_lengths(left: float, top: float, right: float, bottom: float) -> None:
    mask = np.zeros((9, 11), bool)
    mask[max(round(top), 0) : max(round(bottom), 0), max(round(left), 0) : max(round(right), 0)] = True
    (runs,) = MaskStack([box_runs(left, top, right, bottom, (9, 11))], (9, 11)).runs
    if mask.any():
        assert np.array_equal(runs, encode_runs(mask))
    else:  # a box with an area inside the image is never lost
        inside = max(left, 0) < min(right, 11) and max(top, 0) < min(bottom, 9)
        assert bool(runs[1::2].sum()) == inside


@given(st.lists(st.tuples(arrays(np.bool_, (5, 7)), st.sampled_from([0, 1, 2, IGNORE])), max_size=4))
def test_small_regions_lie_on_large_ones(regions: list[tuple[np.ndarray, int]]) -> None:
    ids = np.zeros((5, 7), np.uint16)
    for mask, label in sorted(regions, key=lambda r: -int(r[0].sum())):
        ids[mask] = label
    found = from_regions([Region(encode_runs(m), i) for m, i in regions], Labels(("background", "a", "b")), (5, 7))
    assert found.semantic is not None and np.array_equal(found.semantic.ids, ids)
    assert found.instances is not None
    kept = [m for m, i in regions if i != IGNORE and m.any()]
    assert all(np.array_equal(a, b) for a, b in zip(found.instances.masks, kept, strict=True))


def test_painting_nothing() -> None:
    assert (paint([], (2, 3), 7) == 7).all()


@pytest.mark.slow
def test_a_large_image_with_many_outlines_needs_little_memory(tmp_path: Path) -> None:
    """4000 x 3000 pixels with 200 polygons of 60 points: as dense masks 2.4 GB."""
    rng = np.random.default_rng(0)
    noise_image(tmp_path / "a.jpg", (3000, 4000))
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    outlines = []
    for x, y, r in rng.uniform((400, 400, 50), (3600, 2600, 390), (200, 3)):
        outlines.append(np.stack([x + r * np.cos(turns), y + r * np.sin(turns)], -1).ravel().round(2).tolist())
    annotations = [dict(id=n, image_id=1, category_id=1, segmentation=[p]) for n, p in enumerate(outlines)]
    images = [dict(id=1, file_name="a.jpg", width=4000, height=3000)]
    path = write(tmp_path / "a.json", dict(images=images, annotations=annotations, categories=[dict(id=1, name="x")]))
    code = (
        "import json, re, sys; from datasetdm.readers import read; from datasetdm.readers.overview import summarise\n"
        "reader = read(sys.argv[1]); found = summarise(reader, reader.labels)\n"
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(json.dumps([found.objects['x'], int(peak) / 1024]))"
    )
    done = subprocess.run([sys.executable, "-c", code, f"coco:{path}"], capture_output=True, text=True, check=True)
    objects, megabytes = json.loads(done.stdout)
    assert objects == 200 and megabytes < 300
