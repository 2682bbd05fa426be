"""The loop that writes samples in rounds until enough of them pass the filters."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from datasetdm.engines import local
from datasetdm.engines.yields import rows_of, yield_of
from datasetdm.errors import ConfigError
from datasetdm.io.remote import Place
from datasetdm.pipelines.made import made_by
from datasetdm.pipelines.rounds import RoundPrompts, Tally
from datasetdm.pipelines.stream import Source
from datasetdm.records import Sample
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer

LAST_ROUNDS = 4
"""Rounds over which the yield is measured before the work is given up."""


@dataclass(frozen=True)
class Reached:
    """How far a store is.

    Args:
        held: samples in it.
        passed: those of them that no filter rejected.
        sample: the last one; None at the start.
    """

    held: int
    passed: int
    sample: Sample | None = None


def iter_target(
    source: Source, prompts: RoundPrompts, out: Place | str, target: int, least: float = 0.0, shard_size: int = 256
) -> Generator[Reached]:
    """Bring the store `out` to `target` samples that pass.

    Args:
        source: a stream of samples made from `prompts`, numbered from 0.
        target: samples without a reason against them, those of the store included.
        least: fraction of samples that must pass, over the last `LAST_ROUNDS` rounds.

    Raises:
        ConfigError: fewer pass; the samples stay, and a smaller `least` goes on with them.
        StoreError: as `iter_write` does.
    """
    with Writer(out, source.labels, source.origin(), shard_size, made_by(source)) as writer:
        store = Store(out)
        if writer.written:
            source.check(store)
        passed, tally = yield_of(store).accepted, _tally(store, prompts.size)
        yield Reached(writer.written, passed)
        samples, flushed = source.samples(done=writer), time.monotonic()
        number = writer.written // prompts.size
        _begin(prompts, number, _tally(store, prompts.size, number), least, target - passed, store.folder)
        while passed < target:
            sample = next(samples)
            writer.add(sample)
            found = [sample.labels.names[i] for i in sample.annotations.labels_in()]
            tally.add(sample.prompt.labels if sample.prompt else (), found, sample.accepted, number)
            passed += sample.accepted
            if time.monotonic() - flushed > local.FLUSH_SECONDS:
                writer.flush()
                flushed = time.monotonic()
            yield Reached(writer.written, passed, sample)
            if writer.written % prompts.size == 0 and passed < target:
                number += 1
                writer.flush()
                _begin(prompts, number, tally, least, target - passed, store.folder)


def _begin(prompts: RoundPrompts, number: int, tally: Tally, least: float, missing: int, folder: Place) -> None:
    """Begin a round. Raises ConfigError if too few samples of the last ones passed."""
    last = tally.accepted[-LAST_ROUNDS:]
    if missing > 0 and len(last) == LAST_ROUNDS and sum(last) < least * prompts.size * LAST_ROUNDS:
        raise _hopeless(sum(last), prompts.size * LAST_ROUNDS, least, missing, folder)
    prompts.begin(number, tally)


def _tally(store: Store, size: int, rounds: int | None = None) -> Tally:
    """That of the first rounds of a store, or of all, as its samples were written."""
    written, tally = Store(store.folder), Tally()
    written.quality = {}
    columns = ("key", "prompt_labels", "found", "quality_reasons")
    for i, row in enumerate(rows_of(written, columns, None if rounds is None else rounds * size)):
        tally.add(row["prompt_labels"], row["found"], not row["quality_reasons"], i // size)
    return tally


def _hopeless(passed: int, of: int, least: float, missing: int, folder: Place) -> ConfigError:
    reasons = yield_of(Store(folder)).reasons.most_common(3)
    more = f": {missing} more want about {round(missing * of / passed):,} images" if passed else ""
    why = "; ".join(f"{text} ({count})" for text, count in reasons)
    return ConfigError(
        f"only {passed} of the last {of} samples passed the filters{more}",
        where=folder,
        expected=f"at least {least:.0%} (--min-yield); the most frequent reasons: {why}",
        remedy="look at the samples (`datasetdm view`), lower a threshold or change the prompts; --min-yield 0 goes on",
    )
