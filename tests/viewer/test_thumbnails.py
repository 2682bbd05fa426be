from __future__ import annotations

import io
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from datasetdm.io.codecs import encode_png
from datasetdm.records import Sample
from datasetdm.store import Store, write_store, writer
from datasetdm.viewer import detail, thumbnails
from datasetdm.viewer.rows import Rows
from factory import LABELS, make_sample

ROWS_PER_GROUP = 2


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Six rows in three groups; one thread makes images of them."""
    monkeypatch.setattr(writer, "GROUP_ROWS", ROWS_PER_GROUP)
    samples: list[Sample] = [make_sample(f"s{i}", (48, 64), i, LABELS) for i in range(6)]
    write_store(samples, tmp_path / "s", LABELS)
    store = Store(tmp_path / "s")
    store.parallel = 1
    return Rows(store)


def test_those_that_wait_for_a_group_are_made_together(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, made = Event(), Event(), []
    encoded = rows.encoded

    def slow(row: int) -> object:
        begun.set()
        assert go.wait(10)
        if row not in made:
            made.append(row)
        return encoded(row)

    monkeypatch.setattr(rows, "encoded", slow)
    images = thumbnails.Thumbnails(rows)
    coming = [images.get(0, 16)]
    assert begun.wait(10)
    coming += [images.get(row, 16) for row in (2, 4, 5, 3, 2, 1)]
    go.set()
    assert all(future.result(10)[1] == "image/jpeg" for future in coming)
    assert made == [0, 2, 3, 4, 5, 1]


def test_small_images_are_kept_and_large_ones_are_not(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    images = thumbnails.Thumbnails(rows)
    small, whole = images.get(3, 16).result(10), images.get(3, 0).result(10)
    assert whole == (rows.encoded(3).to_pybytes(), "image/png")

    def refuse(row: int) -> None:
        raise OSError(f"row {row} is read again")

    monkeypatch.setattr(rows, "encoded", refuse)
    assert images.get(3, 16).result(10) == small
    with pytest.raises(OSError, match="row 3 is read again"):
        images.get(3, 0).result(10)


def test_who_fails_or_gives_up_stops_nobody(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = Event(), Event()
    encoded = rows.encoded

    def some(row: int) -> object:
        begun.set()
        assert go.wait(10)
        if row == 2:
            raise OSError("damaged")
        return encoded(row)

    monkeypatch.setattr(rows, "encoded", some)
    images = thumbnails.Thumbnails(rows)
    first = images.get(0, 16)
    assert begun.wait(10)
    bad, good, same = images.get(2, 16), images.get(3, 16), images.get(3, 16)
    good.cancel()
    go.set()
    assert first.result(10)[1] == same.result(10)[1] == "image/jpeg"
    with pytest.raises(OSError, match="damaged"):
        bad.result(10)
    with pytest.raises(IndexError):
        images.get(6, 16)


@pytest.mark.parametrize("limit", [detail.LARGE, 1])
def test_a_small_image_is_the_mean_of_the_large_one(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detail, "LARGE", limit)
    y, x = np.mgrid[:60, :120]
    image = np.stack([x * 2, y * 4, (x // 20 + y // 20) % 2 * 255], axis=-1).astype(np.uint8)
    content, kind = detail.thumbnail(encode_png(image), 60)
    small = np.asarray(Image.open(io.BytesIO(content))).astype(float)
    assert kind == "image/jpeg" and small.shape == (30, 60, 3)
    assert np.abs(small - image.reshape(30, 2, 60, 2, 3).mean((1, 3))).mean() < 4
