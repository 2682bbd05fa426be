from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasetdm.errors import ConfigError
from datasetdm.readers import read
from datasetdm.records import Sample
from datasetdm.store import Store, write_store
from datasetdm.store.reviews import Review, append_review
from datasetdm.transforms import accepted
from datasetdm.transforms.reviews import ApplyReviews, reviews_of
from factory import LABELS


@pytest.fixture
def store(samples: list[Sample], tmp_path: Path) -> Store:
    write_store(samples, tmp_path / "store", LABELS, shard_size=5)
    return Store(tmp_path / "store")


def test_rejected_samples_get_a_reason_and_labels_are_fixed(store: Store, samples: list[Sample]) -> None:
    append_review(store.folder, Review("s3", "reject", "wrong mask"))
    append_review(store.folder, Review("s4", "reject"))
    append_review(store.folder, Review("s4", "accept"))  # the last counts
    append_review(store.folder, Review("s5", objects={0: "sky"}))
    append_review(store.folder, Review("s6", "reject"))
    (transform,) = reviews_of(store)
    found = {s.key: s for s in transform(store)}
    assert list(found) == [s.key for s in samples] and (transform.rejected, transform.fixed) == (2, 1)
    assert found["s3"].quality.reasons == ("review: wrong mask",) and found["s6"].quality.reasons == ("review",)
    assert [s.key for s in accepted(found.values())] == [k for k in found if k not in ("s3", "s6")]
    assert found["s5"].instances.label_ids.tolist() == [0]
    assert np.array_equal(found["s5"].semantic.ids == 0, (samples[5].semantic.ids < 2))


def test_a_reader_of_the_store_has_its_reviews(store: Store, samples: list[Sample]) -> None:
    assert reviews_of(store) == () and reviews_of(samples) == ()
    append_review(store.folder, Review("s3", "reject"))
    (transform,) = reviews_of(read(f"store:{store.folder}"))
    assert transform.rejected == 1 and reviews_of(samples) == ()


def test_other_reviews_are_another_transform(store: Store) -> None:
    append_review(store.folder, Review("s3", "reject"))
    append_review(store.folder, Review("s1", "accept"))
    first = ApplyReviews(store=store.folder)
    append_review(store.folder, Review("s1", "accept"))
    append_review(store.folder, Review("s3", "reject"))
    assert ApplyReviews(store=store.folder).to_json() == first.to_json(), "what counts is what was said last"
    append_review(store.folder, Review("s3", "accept"))
    assert ApplyReviews(store=store.folder).digest != first.digest
    with pytest.raises(ConfigError, match="reviews of this store have changed"):
        ApplyReviews(store=store.folder, reviews=first.digest)
