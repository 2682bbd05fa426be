"""Samples for training: what is used when, and memory that does not grow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datasetdm.downstream.glpn import Glpn
from datasetdm.downstream.pool import Batches, Pool
from datasetdm.downstream.segformer import Segformer, cross_entropy
from datasetdm.errors import DataError
from datasetdm.records import IGNORE, Labels, Sample
from factory import LABELS, make_sample

SAMPLES = [make_sample(f"s{i}", (20, 24), i) for i in range(5)]


def pool(folder: Path, samples: list[Sample] = SAMPLES, memory: int = 2**30) -> Pool:
    return Pool(samples, Segformer(LABELS), folder / "spilled.arrow", memory)


def test_samples_in_the_file_are_those_in_memory(tmp_path: Path) -> None:
    whole, none, some = (pool(tmp_path / str(m), memory=m) for m in (2**30, 0, 15_000))
    assert not (tmp_path / str(2**30)).exists() and (tmp_path / "15000" / "spilled.arrow").exists()
    assert whole.digest == none.digest == some.digest and len(none) == len(some) == len(whole) == 5
    for i in range(5):
        assert whole[i].digest() == none[i].digest() == some[i].digest()
        assert whole[i].instances is None, "only what is learnt from is kept"


def test_a_fraction_of_every_batch_is_synthetic_and_all_samples_are_used_alike(tmp_path: Path) -> None:
    batches = Batches(Segformer(LABELS), pool(tmp_path / "a"), pool(tmp_path / "b", SAMPLES[:2]), 0.3, 4, 32, 0)
    chosen = [batches.chosen(step) for step in range(25)]
    assert all(len(c) == 4 for c in chosen) and {sum(p for p, _ in c) for c in chosen} == {1, 2}
    times = Counter(x for c in chosen for x in c)
    assert sum(n for (p, _), n in times.items() if p) == 30
    assert {n for (p, _), n in times.items() if not p} == {14} and {n for (p, _), n in times.items() if p} == {15}
    assert batches.make(3).synthetic.tolist() == [False] * sum(not p for p, _ in chosen[3]) + [True] * sum(
        p for p, _ in chosen[3]
    )
    only = Batches(Segformer(LABELS), pool(tmp_path / "a"), None, 0.3, 4, 32, 0)
    assert not any(p for p, _ in only.chosen(7))


def test_batches_made_ahead_are_those_of_their_steps(tmp_path: Path) -> None:
    batches = Batches(Segformer(LABELS), pool(tmp_path), None, 0.0, 2, 32, 0)
    for step, batch in enumerate(batches.from_step(2, 7), 2):
        assert torch.equal(batch.images, batches.make(step).images)


def test_data_without_common_labels_or_annotations_are_refused(tmp_path: Path) -> None:
    others = [make_sample("x", labels=Labels(("a", "b", "c")))]
    with pytest.raises(DataError, match="no label of the student's"):
        pool(tmp_path, others)
    depth = Pool(others, Glpn(LABELS), tmp_path / "spilled.arrow")
    assert depth[0].labels == LABELS and depth[0].depth is not None, "depth has no labels that could differ"
    bare = [Sample(s.key, s.image, s.labels) for s in SAMPLES]
    with pytest.raises(DataError, match="no sample has labels that the student segformer learns from"):
        pool(tmp_path, bare)
    mixed = pool(tmp_path, [*bare, SAMPLES[0]])
    assert (mixed.read, mixed.without_labels, len(mixed)) == (6, 5, 1)


def test_smoothing_is_that_of_torch_and_only_of_some_images() -> None:
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    ids[:, 0] = IGNORE
    smooth = [
        torch.nn.functional.cross_entropy(logits, ids, ignore_index=IGNORE, label_smoothing=s) for s in (0.0, 0.2)
    ]
    assert cross_entropy(logits, ids, None, torch.zeros(2)) == pytest.approx(float(smooth[0]))
    assert cross_entropy(logits, ids, None, torch.full((2,), 0.2)) == pytest.approx(float(smooth[1]))
    first = cross_entropy(logits, ids, None, torch.tensor([0.2, 0.0]))
    assert min(smooth) < first < max(smooth)
    weights = torch.tensor([1.0, 2.0, 5.0])
    expected = torch.nn.functional.cross_entropy(logits, ids, weights, ignore_index=IGNORE)
    assert cross_entropy(logits, ids, weights, torch.zeros(2)) == pytest.approx(float(expected))


def test_rare_labels_are_counted(tmp_path: Path) -> None:
    student = Segformer(LABELS)
    Pool(SAMPLES, student, tmp_path / "x")
    ids = np.concatenate([s.semantic.ids.ravel() for s in SAMPLES])
    assert student.counts.tolist() == np.bincount(ids, minlength=3).tolist()
