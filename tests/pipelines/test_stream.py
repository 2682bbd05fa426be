"""What a stream refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasetdm.engines.local import write
from datasetdm.errors import ConfigError, DataError
from datasetdm.pipelines.stream import Data, Stream
from datasetdm.records import Sample
from datasetdm.transforms.choose import Choose
from factory import LABELS, make_sample
from sources import NamedSamples


def test_a_choice_from_a_source_without_end_is_refused() -> None:
    source = NamedSamples(["a"])
    assert Stream(source, [Choose(limit=1)]).source is source
    source.endless = True
    with pytest.raises(ConfigError, match="never ends"):
        Stream(source, [Choose(limit=1)])


class Doubled(list[Sample]):
    """A reader of samples that are given."""

    labels = LABELS
    format = "samples"


def test_two_samples_of_one_key_are_an_error_however_often_it_is_tried(tmp_path: Path) -> None:
    data = Data(Doubled([make_sample("a"), make_sample("b"), make_sample("a", seed=1)]))
    for _ in range(2):
        with pytest.raises(DataError, match="two samples have the key 'a'"):
            write(data, tmp_path / "s")
