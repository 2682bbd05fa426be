from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datasetdm.quality.limbs import FilterByLimbs, limb_ranges, limbs
from datasetdm.records import Instances, Keypoints, Labels, Sample, Skeleton
from datasetdm.store import write_store

LABELS = Labels(("sky", "dog"), skeletons={"dog": Skeleton(("nose", "tail"), ((0, 1),))})


def dog(length: float, key: str = "a") -> Sample:
    """A dog of 100 pixels with its tail so far from its nose."""
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 2:12, 2:12] = True
    points = Keypoints(np.array([[[2, 2], [2 + length, 2]]]), np.array([[2, 2]]), (("nose", "tail"),))
    objects = Instances.from_masks(mask, np.ones(1))
    return Sample(key, np.zeros((20, 20, 3), np.uint8), LABELS, instances=objects, keypoints=points)


def test_limbs_of_other_lengths_than_labelled_ones(tmp_path: Path) -> None:
    labelled = [dog(length, f"s{length}") for length in range(8, 13)]
    assert limb_ranges(labelled) == {("dog", "nose", "tail"): (0.8, 1.2)}
    assert limb_ranges(labelled[:4]) == {}, "of too few labelled limbs nothing is known"
    write_store(labelled, tmp_path / "labelled", LABELS)
    transform = FilterByLimbs(data=f"store:{tmp_path / 'labelled'}", slack=1.25)
    found = list(transform([dog(length) for length in (2, 7, 14, 17)]))
    assert [s.accepted for s in found] == [False, True, True, False]
    hidden = replace(dog(17), keypoints=replace(dog(17).keypoints, visibility=np.array([[2, 0]])))
    assert next(transform([hidden])).accepted and not list(limbs(hidden)), "an absent point makes no limb"
