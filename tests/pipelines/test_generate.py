from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import datasetdm as ddm
from datasetdm.backbones import Backbone
from datasetdm.decoder.model import PDecoder
from datasetdm.engines import local
from datasetdm.engines.local import iter_write, write
from datasetdm.errors import ConfigError, DecoderError, StoreError
from datasetdm.pipelines.generate import DatasetGenerator, generate
from datasetdm.store import Store
from datasetdm.store.manifest import shard_path
from factory import LABELS, known

pytestmark = pytest.mark.slow

PROMPTS = ["a dog on the grass", "the sky", "two dogs under the sky"]
FAST = dict(steps=2, guidance=2.0, device="cpu")


@pytest.fixture(scope="module")
def decoder(tiny: Backbone) -> PDecoder:
    torch.manual_seed(0)
    return PDecoder.for_backbone(tiny, LABELS, ("semantic", "depth"), width=32).eval()


@pytest.fixture
def generator(decoder: PDecoder, tiny: Backbone) -> DatasetGenerator:
    return DatasetGenerator(PROMPTS, decoder=decoder, backbone=tiny, batch=4, **FAST)


def fill(generator: DatasetGenerator, out: Path, count: int, shard_size: int = 5) -> list[str]:
    assert write(generator, out, count, shard_size) >= count
    return [s.digest() for s in Store(out)]


def done(count: int) -> set[str]:
    """The keys of the first samples."""
    return {f"{i:08d}" for i in range(count)}


def test_samples_are_whole(generator: DatasetGenerator) -> None:
    first, second, third, fourth = islice(generator.samples(), 4)
    assert first.prompt is not None and first.prompt.labels == ("dog", "grass")
    assert [s.prompt.text for s in (first, second, third, fourth) if s.prompt] == [*PROMPTS, PROMPTS[0]]
    assert known(first) == ["semantic", "depth"]
    assert first.size == generator.backbone.size and first.semantic.confidence is not None
    assert first.digest() != fourth.digest(), "the same prompt with another index is another picture"


def test_a_sample_depends_on_recipe_and_index_alone(generator: DatasetGenerator) -> None:
    straight = [s.digest() for s in islice(generator.samples(), 10)]
    for start in (3, 4, 9):
        assert next(generator.samples(done(start))).digest() == straight[start]


def test_seeds_do_not_depend_on_the_batch(decoder: PDecoder, tiny: Backbone) -> None:
    one, four = (DatasetGenerator(PROMPTS, decoder=decoder, backbone=tiny, batch=b, **FAST) for b in (1, 4))
    assert [one.prompt(i) for i in range(9)] == [four.prompt(i) for i in range(9)]
    assert len({one.prompt(i).seed for i in range(1000)}) == 1000
    a, b = next(one.samples(done(2))), next(four.samples(done(2)))
    assert np.abs(a.image.astype(int) - b.image.astype(int)).max() <= 2


def test_other_prompts_and_seeds_give_other_pictures_and_labels(decoder: PDecoder, tiny: Backbone) -> None:
    def run(prompts: list[str], seed: int) -> list[ddm.Sample]:
        g = DatasetGenerator(prompts, decoder=decoder, backbone=tiny, batch=3, seed=seed, **FAST)
        return list(islice(g.samples(), 3))

    base, seeded, prompted = run(PROMPTS, 0), run(PROMPTS, 1), run(PROMPTS[::-1], 0)
    for a, b in ((base, seeded), (base, prompted)):
        assert not any(np.array_equal(x.image, y.image) for x, y in zip(a, b, strict=True) if x.prompt != y.prompt)
    assert any(not np.array_equal(x.semantic.ids, y.semantic.ids) for x, y in zip(base, seeded, strict=True))


def test_resuming_changes_no_byte(generator: DatasetGenerator, tmp_path: Path) -> None:
    whole = fill(generator, tmp_path / "whole", 11)
    for count in (3, 4, 9, 11):
        parts = fill(generator, tmp_path / "parts", count)
        assert len(parts) == count
    assert parts == whole
    for i in range(3):
        assert shard_path(tmp_path / "whole", i).read_bytes() == shard_path(tmp_path / "parts", i).read_bytes()


def test_stopping_in_the_middle_keeps_finished_batches(generator: DatasetGenerator, tmp_path: Path) -> None:
    run = iter_write(generator, tmp_path / "s", 100, 50)
    assert [next(run)[0] for _ in range(7)] == [0, 1, 2, 3, 4, 5, 6]
    run.close()  # what Ctrl-C does to the loop
    assert len(Store(tmp_path / "s")) == 6


def test_another_recipe_is_refused(
    decoder: PDecoder, tiny: Backbone, generator: DatasetGenerator, tmp_path: Path
) -> None:
    fill(generator, tmp_path / "s", 4)
    for change, key in (({"seed": 5}, "seed"), ({"batch": 2}, "batch"), ({"steps": 3}, "steps")):
        other = DatasetGenerator(PROMPTS, decoder=decoder, backbone=tiny, **{**FAST, "batch": 4, **change})
        with pytest.raises(StoreError, match=f"{key} differs"):
            fill(other, tmp_path / "s", 8)


def test_the_iterator_never_ends_unless_told(decoder: PDecoder, tiny: Backbone) -> None:
    endless = generate(PROMPTS, decoder=decoder, backbone=tiny, batch=2, **FAST)
    assert [s.key for s in islice(endless, 5)] == [f"{i:08d}" for i in range(5)]
    assert len(list(generate(PROMPTS, count=3, decoder=decoder, backbone=tiny, **FAST))) == 3


def test_labels_that_were_never_fitted(decoder: PDecoder, tiny: Backbone) -> None:
    sample = next(generate(["a cow"], count=1, decoder=decoder, backbone=tiny, labels=("cow", "road"), **FAST))
    assert sample.labels.names == ("cow", "road") and sample.prompt is not None and sample.prompt.labels == ("cow",)
    assert int(sample.semantic.ids.max()) < 2


def test_bad_settings(decoder: PDecoder, tiny: Backbone, mini: Backbone) -> None:
    with pytest.raises(ConfigError, match="no prompt"):
        DatasetGenerator([], decoder=decoder, backbone=tiny)
    with pytest.raises(ConfigError, match="did you mean 'guidance'"):
        DatasetGenerator(PROMPTS, decoder=decoder, backbone=tiny, guidence=3.0)
    with pytest.raises(ConfigError, match="count 0"):
        generate(PROMPTS, count=0)
    with pytest.raises(DecoderError, match="another backbone"):
        DatasetGenerator(PROMPTS, decoder=decoder, backbone=mini)


def test_killed_and_resumed_with_the_embedded_model(
    mini: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle, in a process of its own; the rest is made here, and all is as if nothing had happened."""
    code = """
import sys, datasetdm.engines.local as engine
from datasetdm.pipelines.generate import DatasetGenerator
engine.FLUSH_SECONDS = 0
source = DatasetGenerator(["a red bus on a road"], batch=2, steps=4, device="cpu")
for held, _ in engine.iter_write(source, sys.argv[1], 6, 3):
    print(held, flush=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen([*command, str(tmp_path / "k")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 2:
                os.kill(process.pid, signal.SIGKILL)
                break
    held = len(Store(tmp_path / "k"))
    assert 2 <= held < 6
    monkeypatch.setattr(local, "FLUSH_SECONDS", 0)
    source = DatasetGenerator(["a red bus on a road"], backbone=mini, batch=2, steps=4)
    for name in ("k", "whole"):
        assert list(iter_write(source, tmp_path / name, 6, 3))
    assert [s.digest() for s in Store(tmp_path / "k")] == [s.digest() for s in Store(tmp_path / "whole")]
    assert shard_path(tmp_path / "k", 1).read_bytes() == shard_path(tmp_path / "whole", 1).read_bytes()
