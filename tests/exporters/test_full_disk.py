"""Places that cannot be written: one error with a remedy, and nothing left behind, in every format."""

from __future__ import annotations

import errno
import resource
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import OutputError
from datasetdm.exporters import EXPORTERS, iter_export
from datasetdm.records import Labels, Sample, Skeleton
from datasetdm.store.writer import Writer
from factory import LABELS, make_sample

POSED = Labels(LABELS.names, LABELS.synonyms, skeletons={"dog": Skeleton(("nose", "tail"))})


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """The operating system refuses larger files, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def noisy(labels: Labels) -> list[Sample]:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return [replace(make_sample(f"s{i}", (64, 64), i, labels), image=noise) for i in range(3)]


@pytest.mark.parametrize("size", [60, 9_000])
@pytest.mark.parametrize("format", sorted(EXPORTERS))
def test_a_full_disk_is_one_error_and_leaves_nothing(format: str, size: int, tmp_path: Path) -> None:
    labels = POSED if format == "yolo-pose" else LABELS
    with files_of_at_most(size), pytest.raises(OutputError) as caught:
        for _ in iter_export(noisy(labels), labels, format, tmp_path / "e"):
            pass
    assert caught.value.where == tmp_path / "e" and caught.value.remedy is not None
    assert "then export again; nothing was left behind" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_place_that_cannot_be_written(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    with monkeypatch.context() as patched, pytest.raises(OutputError) as caught:
        patched.setattr("datasetdm.exporters.tempfile.mkdtemp", refused)
        list(iter_export(noisy(LABELS), LABELS, "masks", tmp_path / "new" / "e"))
    assert caught.value.where == tmp_path / "new" / "e"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanishes_is_one_error(tmp_path: Path) -> None:
    samples = noisy(LABELS)
    work = iter_export(samples, LABELS, "masks", tmp_path / "e")
    next(work)
    for path in tmp_path.glob(".e.*.tmp"):
        shutil.rmtree(path)
    with pytest.raises(OutputError):
        list(work)
    with pytest.raises(OutputError), Writer(tmp_path / "s", LABELS, {}, shard_size=1) as writer:
        writer.add(samples[0])
        writer.flush()
        shutil.rmtree(tmp_path / "s")
        (tmp_path / "s").write_text("a file now")
        writer.add(samples[1])
