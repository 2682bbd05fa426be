"""Rounds until enough samples pass: which prompts they take, that nothing but the stream decides it, and when they stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar

import pytest

from datasetdm.engines.target import LAST_ROUNDS, iter_target
from datasetdm.engines.yields import yield_of
from datasetdm.errors import ConfigError, StoreError
from datasetdm.pipelines.rounds import STRONGEST, RoundPrompts, Tally
from datasetdm.pipelines.stream import Keys
from datasetdm.prompts import PromptFile, PromptList, PromptSource
from datasetdm.records import Labels, Prompt, Sample
from datasetdm.records.edits import reject
from datasetdm.store.manifest import shard_path
from datasetdm.store.quality import append_quality
from datasetdm.store.store import Store
from factory import LABELS, make_sample

PROMPTS = ["a dog", "the grass", "the sky", "the sky again"]
ROUND = 16


@dataclass
class Prompted:
    """Samples of a prompt each, that show what it asks for; of those with a dog one of `dogs` passes."""

    prompts: RoundPrompts
    dogs: int = 5
    others: bool = True
    labels: ClassVar[Labels] = LABELS
    endless: ClassVar[bool] = True

    def origin(self) -> dict[str, Any]:
        return {"source": "prompted", "prompts": self.prompts.origin()}

    def samples(self, done: Keys = ()) -> Iterator[Sample]:
        for i in count():
            if (key := f"{i:08d}") in done:
                continue
            text = self.prompts.row(i).prompt
            sample = replace(make_sample(key, (8, 8), i), prompt=Prompt(text, LABELS.named_in(text)))
            passes = i % self.dogs == 0 if "dog" in text else self.others
            yield sample if passes else reject(sample, "test: bad")

    def check(self, store: Store) -> None:
        """Nothing to check."""


def source(prompts: PromptSource | None = None, **settings: Any) -> Prompted:
    return Prompted(RoundPrompts(prompts or PromptList(PROMPTS), LABELS, ROUND), **settings)


def fill(out: Path, target: int, stop: int | None = None, **settings: Any) -> list[tuple[int, int]]:
    """(samples, passed) after every sample; the work is given up after `stop` of them."""
    made = source(**settings)
    work = iter_target(made, made.prompts, out, target, 0.02, shard_size=10)
    found = [(r.held, r.passed) for r in islice(work, stop)]
    work.close()
    return found


def contents(out: Path) -> list[bytes]:
    return [shard_path(out, i).read_bytes() for i in range(len(Store(out).shards))]


def test_it_ends_with_the_sample_that_was_missing(tmp_path: Path) -> None:
    steps = fill(tmp_path / "s", 50)
    store = Store(tmp_path / "s")
    assert steps[0] == (0, 0) and steps[-1] == (len(store), 50) and steps[-2][1] == 49
    found = yield_of(store)
    assert (found.samples, found.accepted, found.reasons) == (len(store), 50, Counter({"test: bad": len(store) - 50}))
    assert fill(tmp_path / "s", 50) == [(len(store), 50)], "nothing is left to do"


def test_a_round_is_the_same_wherever_the_work_was_stopped(tmp_path: Path) -> None:
    fill(tmp_path / "whole", 40)
    for stop in (3, 15, 1, 2, 7, 30, None):  # within a round and at its end
        fill(tmp_path / "parts", 40, stop)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole") and len(contents(tmp_path / "whole")) > 5
    for target in (4, 21, 40):
        fill(tmp_path / "grown", target)
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole"), "a store grows"


def test_what_filters_say_later_changes_the_number_but_no_sample(tmp_path: Path) -> None:
    fill(tmp_path / "plain", 50)
    fill(tmp_path / "later", 25)
    passed = [s for s in Store(tmp_path / "later") if s.accepted]
    for sample in passed[:9]:
        append_quality(tmp_path / "later", sample.key, reject(sample, "later").quality)
    fill(tmp_path / "later", 25)
    assert yield_of(Store(tmp_path / "later")).accepted == 25
    for one, other in zip(Store(tmp_path / "later"), Store(tmp_path / "plain"), strict=False):
        assert (one.digest(), one.prompt) == (other.digest(), other.prompt)


def test_rare_and_hard_labels_are_asked_for_more_often(tmp_path: Path) -> None:
    fill(tmp_path / "s", 130)
    texts = [s.prompt.text for s in Store(tmp_path / "s") if s.prompt]
    assert texts[:ROUND] == [PROMPTS[i % 4] for i in range(ROUND)], "the first round takes them in turn"
    later = Counter(texts[4 * ROUND :])
    total = sum(later.values())
    assert later["a dog"] / total > 0.35, "one in five of these passes"
    assert later["the grass"] > 1.2 * later["the sky"], "half as many prompts ask for it"


def test_weights_have_bounds_and_a_mean() -> None:
    tally = Tally()
    assert {tally.weight(n) for n in LABELS.names} == {1.0}
    for i in range(1000):
        tally.add(("sky",), ("sky", "grass"), True, i // 100)
    assert tally.weight("dog") == STRONGEST and tally.weight("sky") == pytest.approx(1)
    tally.add(("dog",), ("sky",), True, 10)
    assert tally.shown == {"sky": 1000}, "asked for but not there"
    tally.add(("dog",), (), True, 10)
    assert tally.shown["dog"] == 1 and tally.accepted == [100] * 10 + [2], (
        "annotations without labels show what was asked"
    )


def test_prompts_of_a_file_are_all_within_reach(tmp_path: Path) -> None:
    """Also of a sorted file, whose neighbours ask for one label."""
    (tmp_path / "p.txt").write_text(
        "".join(f"a dog {i}\n" for i in range(50)) + "".join(f"sky {i}\n" for i in range(50))
    )
    prompts = RoundPrompts(PromptFile(tmp_path / "p.txt"), LABELS, ROUND)
    assert prompts.count == ROUND
    tally = Tally()
    for _ in range(15):
        tally.add(("sky",), ("sky",), True, 0)
    seen = Counter()
    for number in range(1, 9):
        prompts.begin(number, tally)
        seen.update(prompts.row(i).prompt for i in range(number * ROUND, (number + 1) * ROUND))
    assert len(seen) > 50 and sum(c for text, c in seen.items() if "dog" in text) > 85, "four times as often"
    with pytest.raises(KeyError):
        prompts.row(50 * ROUND)


def test_another_size_of_rounds_is_another_stream(tmp_path: Path) -> None:
    fill(tmp_path / "s", 5)
    other = Prompted(RoundPrompts(PromptList(PROMPTS), LABELS, 2 * ROUND))
    with pytest.raises(StoreError, match=r"prompts\.round differs"):
        list(iter_target(other, other.prompts, tmp_path / "s", 9))


def test_it_gives_up_where_hardly_anything_passes(tmp_path: Path) -> None:
    hopeless: dict[str, Any] = dict(dogs=100, others=False)
    with pytest.raises(ConfigError, match="only 1 of the last 64 samples passed") as e:
        fill(tmp_path / "s", 1000, **hopeless)
    assert len(Store(tmp_path / "s")) == LAST_ROUNDS * ROUND, "what was made stays"
    assert "999 more want about 63,936 images" in e.value.what and "test: bad (63)" in str(e.value)
    made = source(**hopeless)
    work = iter_target(made, made.prompts, tmp_path / "s", 1000, 0.0)
    assert [r.held for r in islice(work, 3)] == [64, 65, 66], "a smaller --min-yield goes on"
    work.close()
    assert fill(tmp_path / "few", 1, **hopeless)[-1][1] == 1, "it may be enough"
