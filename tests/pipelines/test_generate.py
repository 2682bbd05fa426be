from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

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
from datasetdm.prompts import PromptFile, PromptRow
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


def test_rows_of_a_file_reach_the_sample(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    """Labels, seed, negative prompt, origin and what else the image is meant to show; a repeated row has another seed."""
    rows = [
        PromptRow(prompt="a labrador", labels=("puppy",), seed=2**64 - 1, negative="the sky", origin="language-model"),
        PromptRow(prompt="a dog on the grass", counts={"dog": 1}, place="a park"),
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(r.to_json() for r in rows))

    def run(prompts: Any, **more: Any) -> list[ddm.Sample]:
        g = DatasetGenerator(prompts, decoder=decoder, backbone=tiny, batch=4, **FAST, **more)
        return list(islice(g.samples(), 4))

    first, second, third, fourth = samples = run(PromptFile(path))
    prompts = [s.prompt for s in samples if s.prompt]
    assert [p.labels for p in prompts] == [("dog",), ("dog", "grass")] * 2
    assert [p.origin for p in prompts] == ["language-model", "user"] * 2
    assert prompts[0].seed == 2**64 - 1 and len({p.seed for p in prompts}) == 4
    assert first.provenance.details == third.provenance.details == {"negative": "the sky"}
    assert second.provenance.details == {"counts": {"dog": 1}, "place": "a park"}
    assert not np.array_equal(first.image, third.image) and not np.array_equal(second.image, fourth.image)

    path.write_text("\n".join(r.model_copy(update={"negative": None}).to_json() for r in rows))
    plain, other = run(PromptFile(path)), run(PromptFile(path), negative="the sky")
    assert not np.array_equal(plain[0].image, first.image) and not plain[0].provenance.details
    for a, b in ((other[0], first), (plain[1], second)):  # other neighbours in the batch: the same up to rounding
        assert np.abs(a.image.astype(int) - b.image.astype(int)).max() <= 2
    path.write_text(PromptRow(prompt="a labrador").to_json())
    assert run(PromptFile(path))[0].prompt != plain[0].prompt


def test_labels_come_from_the_words_that_were_kept(decoder: PDecoder, tiny: Backbone) -> None:
    """Two prompts that differ after them are one: the same image, the same labels."""
    long = "a dog " + "on the red red road " * 20
    ends = [DatasetGenerator([long + w], decoder=decoder, backbone=tiny, batch=1, **FAST) for w in ("grass", "sky")]
    one, other = (next(g.samples()) for g in ends)
    assert one.digest() == other.digest() and one.prompt.labels == other.prompt.labels == ("dog",)


def test_negative_prompts_without_effect(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    """Refused in the settings at once; those of a file are left out of the sample and its provenance."""
    plain = {**FAST, "guidance": 1.0}
    with pytest.raises(ConfigError, match="negative prompt has no effect"):
        DatasetGenerator(PROMPTS, decoder=decoder, backbone=tiny, negative="sky", **plain)
    (tmp_path / "p.jsonl").write_text(PromptRow(prompt=PROMPTS[0], negative="sky").to_json())
    sources = (PromptFile(tmp_path / "p.jsonl"), PROMPTS)
    one, other = (
        next(DatasetGenerator(p, decoder=decoder, backbone=tiny, batch=1, **plain).samples()) for p in sources
    )
    assert one.digest() == other.digest() and not one.provenance.details


def test_another_prompt_file_is_another_stream(decoder: PDecoder, tiny: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a dog\nthe sky\n")

    def source() -> DatasetGenerator:
        return DatasetGenerator(PromptFile(path), decoder=decoder, backbone=tiny, batch=2, **FAST)

    fill(source(), tmp_path / "s", 2)
    assert fill(source(), tmp_path / "s", 3)
    path.write_text("a dog\nthe grass\n")
    with pytest.raises(StoreError, match=r"prompts\.sha256 differs"):
        fill(source(), tmp_path / "s", 4)


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
