"""Mutated files for everything that reads files of others: readers, stores, decoders, prompts and recipes.

    python -m benchmarks.fuzz --json PATH [--minutes 10] [--seed 0] [--targets coco voc]
    python -m benchmarks.fuzz --targets coco --input 123       the same input again, with its traceback

Every input is good data with one or two files mutated (`benchmarks/mutations.py`); it depends on the seed, the target's name
and its number alone. Right is a `DatasetDMError` that was foreseen, or no error. A failure is any other exception, more than
`SECONDS`, more memory than `MEMORY` above the start, or the end of the process; failures are reported with the number of their
input.

`targets`: inputs, refused (by an error with a remedy), seconds of the slowest and its number, peak memory of each; `inputs` and
`failures` of all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, stamp
from benchmarks.mutations import Rng, change_value, mutate, pick
from datasetdm.errors import DatasetDMError
from datasetdm.io.files import write_json
from datasetdm.readers import READERS, read
from datasetdm.readers.source import UNFORESEEN

SECONDS = 10
"""That one input may take."""
MEMORY = 2**30
"""Bytes that a process may need above what it needs before the first input."""
SILENCE = 30
"""Seconds after which a process that says nothing is ended."""
LISTED = 40
"""Failures that are written down."""

if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))  # for `labelled`, the makers of good data

Use = Callable[[Path, Rng], object]


@dataclass(frozen=True)
class Target:
    """What reads files.

    Args:
        make: writes good data into a folder.
        use: reads all of it.
        change: changes them in a way of its own, beside mutations of single files.
    """

    make: Callable[[Path], object]
    use: Use
    change: Use | None = None


@dataclass
class Result:
    """What became of a target's inputs."""

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    peak: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Result) -> None:
        """Take up what another process found."""
        self.inputs, self.refused = self.inputs + other.inputs, self.refused + other.refused
        self.seconds += other.seconds
        self.slowest, self.peak = max(self.slowest, tuple(other.slowest)), max(self.peak, other.peak)
        self.failures += other.failures

    def to_json(self) -> dict[str, Any]:
        """Rounded."""
        return {
            "inputs": self.inputs, "refused": self.refused, "slowest_seconds": round(self.slowest[0], 3),
            "slowest_input": self.slowest[1], "peak_mb": round(self.peak / 2**20), "failures": len(self.failures),
        }  # fmt: skip


# ---------------------------------------------------------------------- targets
def _reader(format: str) -> Target:
    from labelled import MAKERS

    def use(folder: Path, rng: Rng) -> None:
        name = (folder / ".name").read_text()
        part = pick(rng, ("", "@boxes")) if format == "voc" else ""
        images = folder if format == "lvis" else None
        for _ in read(f"{format}:{name}{part}", images, pick(rng, ("stop", "skip"))):
            pass

    return Target(lambda folder: (folder / ".name").write_text(str(MAKERS[format](folder))), use)


def _mini() -> Target:
    """A few rows of the packaged renders."""

    def make(folder: Path) -> None:
        import pyarrow.parquet as pq

        from datasetdm.readers.formats.mini import PACKAGED

        source = next(PACKAGED.glob("test*.parquet"))
        pq.write_table(pq.read_table(source).slice(0, 2), folder / "part-000000.parquet")

    return Target(make, lambda folder, _: list(read(f"mini:{folder / 'part'}")))


def _store() -> Target:
    """Shards, manifests, `dataset.json`, reviews and scores; also files that were changed together with their checksums."""
    from datasetdm.records import Quality
    from datasetdm.store.manifest import META, Manifest, manifest_path, shard_path, write_checked, write_manifest
    from datasetdm.store.quality import append_quality
    from datasetdm.store.reviews import Review, append_review, read_reviews
    from datasetdm.store.store import Store
    from datasetdm.store.writer import write_store
    from factory import LABELS, make_sample

    def make(folder: Path) -> None:
        write_store([make_sample(f"s{i}", (24, 32 + i), i) for i in range(3)], folder, LABELS, shard_size=2)
        append_review(folder, Review("s0", "reject", "mask", {"dog": "sky"}, {0: "sky"}))
        append_quality(folder, "s1", Quality({"sharp": 0.5}, ("blurred",)))

    def use(folder: Path, _: Rng) -> None:
        store = Store(folder)
        reviews = read_reviews(folder)
        for sample in store:
            if sample.key in reviews:
                reviews[sample.key].apply(sample)
        store.table(["key"])

    def change(folder: Path, rng: Rng) -> None:
        shard = shard_path(folder, int(rng.integers(2)))
        kind = int(rng.integers(3))
        path = (shard, manifest_path(shard), folder / META)[kind]
        if kind == 0:
            path.write_bytes(mutate(rng, path.name, path.read_bytes()))
            write_manifest(path, Manifest.of_file(path, ["s0", "s1"] if path == shard_path(folder, 0) else ["s2"]))
            return
        value = json.loads(path.read_bytes())
        value.pop("checksum", None)
        for _ in range(int(rng.integers(1, 3))):
            value = change_value(rng, value)
        if isinstance(value, dict):
            with contextlib.suppress(ValueError, OSError, RecursionError):  # no JSON of ours
                write_checked(path, value)
        else:
            path.write_bytes(json.dumps(value).encode())

    return Target(make, use, change)


def _decoder() -> Target:
    """`config.json` and the head of the weights, of a small decoder."""
    import torch

    from datasetdm.decoder.model import PDecoder

    def make(folder: Path) -> None:
        torch.manual_seed(0)
        PDecoder(replace(PDecoder.load("mini").config, width=32)).save(folder)

    return Target(make, lambda folder, _: PDecoder.load(folder))


def _prompts() -> Target:
    from datasetdm.prompts import open_prompts

    texts = {
        "a.txt": "# dogs\na dog in a park\ntwo cats on a sofa\n",
        "b.json": json.dumps([{"prompt": "a dog", "labels": ["dog"], "seed": 3, "negative": "dark"}, "two cats"]),
        "c.jsonl": '{"text": "a dog", "seed": 1}\n"two cats"\n',
        "d.csv": 'prompt,labels,seed\n"a dog, and a cat",dog;cat,4\n"two cats",,\n',
        "e.tsv": "caption\tnegative\na dog\tdark\n",
    }

    def make(folder: Path) -> None:
        for name, text in texts.items():
            (folder / name).write_text(text)

    def use(folder: Path, _: Rng) -> None:
        for name in texts:
            prompts = open_prompts((str(folder / name),))
            for number in range(5):
                prompts.row(number)
            prompts.origin()

    return Target(make, use)


def _recipe() -> Target:
    from datasetdm.recipe.run import load_recipe, shipped

    def make(folder: Path) -> None:
        for path in shipped().values():
            shutil.copy(path, folder)

    def use(folder: Path, _: Rng) -> None:
        for path in sorted(folder.glob("*.yaml")):
            load_recipe(path)

    return Target(make, use)


def targets() -> dict[str, Callable[[], Target]]:
    """Name -> what makes it."""
    others = {"mini": _mini, "store": _store, "decoder": _decoder, "prompts": _prompts, "recipe": _recipe}
    readers: dict[str, Callable[[], Target]] = {n: lambda n=n: _reader(n) for n in READERS if n not in others}
    return readers | others


# ---------------------------------------------------------------------- inputs
class TooSlow(BaseException):
    """An input took more than `SECONDS`. No exception that a reader would catch."""


def _alarm(*_: object) -> None:
    raise TooSlow


def _damage(folder: Path, good: dict[str, bytes], rng: Rng) -> None:
    """Change one or two files."""
    for _ in range(1 if rng.random() < 0.8 else 2):
        name = pick(rng, sorted(n for n in good if not Path(n).name.startswith(".")))
        path, chance = folder / name, rng.random()
        if not path.is_file() or path.is_symlink():  # damaged already
            continue
        if chance < 0.05:
            path.unlink()
        if chance < 0.01:
            path.mkdir()
        elif chance < 0.02:
            path.symlink_to(path.name)
        elif 0.05 <= chance < 0.08:
            path.write_bytes(good[pick(rng, sorted(good))])
        elif chance >= 0.08:
            path.write_bytes(mutate(rng, name, path.read_bytes()))


def _restore(folder: Path, good: dict[str, bytes]) -> None:
    """Make the folder what it was."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = str(path.relative_to(folder))
        if path.is_symlink() or (name not in good and not path.is_dir()) or (path.is_dir() and name in good):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, data in good.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            path.write_bytes(data)


def run_inputs(
    name: str, target: Target, numbers: Iterable[int], seed: int, until: float, raising: bool = False
) -> Iterator[Result]:
    """Use the target on one input after the other, until a moment of `time.monotonic`; yields what became of each."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary)
        target.make(folder)
        good = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        target.use(folder, np.random.default_rng(0))
        signal.signal(signal.SIGALRM, _alarm)
        for number in numbers:
            if time.monotonic() > until:
                return
            rng = np.random.default_rng((seed, zlib.crc32(name.encode()), number))
            if target.change is not None and rng.random() < 0.4:
                target.change(folder, rng)
            else:
                _damage(folder, good, rng)
            result, began = Result(1), time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                target.use(folder, rng)
            except DatasetDMError as e:
                result.refused = 1
                if not e.what or e.what.startswith(UNFORESEEN):
                    result.failures = [_failure(name, number, e)]
            except (Exception, TooSlow) as e:
                if raising:
                    raise
                result.failures = [_failure(name, number, e)]
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            result.seconds = time.perf_counter() - began
            result.slowest = (result.seconds, number)
            yield result
            _restore(folder, good)


def _failure(name: str, number: int, error: BaseException) -> dict[str, Any]:
    last = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(last))
    return {"target": name, "input": number, "error": f"{type(error).__name__}: {str(error)[:200]}", "where": where}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """Let the process need `MEMORY` more than now."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def child(name: str, seed: int, first: int, count: int, seconds: float) -> None:
    """Run inputs in this process; says every tenth of a second on the output what it found since."""
    warnings.simplefilter("ignore")
    target = targets()[name]()
    total, said = Result(), time.monotonic()
    limited = False
    for result in run_inputs(name, target, iter(range(first, first + count)), seed, time.monotonic() + seconds):
        total.add(result)
        total.peak = _peak()
        if not limited:
            limit_memory()  # after the first input: all that is imported late is there
            limited = True
        if result.failures or time.monotonic() - said > 0.1:
            print(json.dumps(vars(total)), flush=True)
            total, said = Result(), time.monotonic()
    print(json.dumps(vars(total)), flush=True)


# ---------------------------------------------------------------------- children
def fuzz(name: str, seed: int, seconds: float, count: int = 10**9) -> Result:
    """Run inputs of one target in child processes; the end of one is a failure of the input that it was at."""
    total, until = Result(), time.monotonic() + seconds
    while total.inputs < count and time.monotonic() < until:
        left = until - time.monotonic()
        ended = _watch(name, seed, total, count - total.inputs, left)
        if ended is None:
            break
        # What was not reported since the last line is run again one by one, to find the input.
        for number in range(total.inputs, total.inputs + 10_000):
            before = total.inputs
            again = _watch(name, seed, total, 1, SILENCE)
            if again is not None:
                failure = {"target": name, "input": number, "error": again, "where": "the process"}
                total.add(Result(1, failures=[failure]))
                break
            assert total.inputs == before + 1
            if time.monotonic() > until + SILENCE:
                break
    return total


def _watch(name: str, seed: int, total: Result, count: int, seconds: float) -> str | None:
    """One child; adds what it reports to `total`. Returns how it ended if that was not well."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.fuzz",
        "--child",
        name,
        "--seed",
        str(seed),
        "--input",
        str(total.inputs),
    ]
    command += ["--count", str(count), "--seconds", str(seconds)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
        assert process.stdout is not None
        timer_end = time.monotonic() + seconds + SILENCE
        signal.signal(signal.SIGALRM, lambda *_: process.kill())
        signal.alarm(int(timer_end - time.monotonic()) + 1)
        try:
            for line in process.stdout:
                with contextlib.suppress(ValueError):
                    total.add(Result(**json.loads(line)))
            code = process.wait()
        finally:
            signal.alarm(0)
            process.kill()
        if code == 0:
            return None
        errors.seek(0)
        return f"ended with {code}: {errors.read()[-300:]}"


def main() -> None:
    """Fuzz, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", default=None)
    parser.add_argument("--input", type=int, default=None)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return child(given.child, given.seed, given.input, given.count, given.seconds)
    names = given.targets or sorted(targets())
    if given.input is not None:
        target = targets()[names[0]]()
        results = run_inputs(names[0], target, iter([given.input]), given.seed, time.monotonic() + 60, raising=True)
        return print(next(results))
    found: dict[str, Result] = {}
    end = time.monotonic() + 60 * given.minutes
    for i, name in enumerate(names):
        found[name] = fuzz(name, given.seed, max(1.0, (end - time.monotonic()) / (len(names) - i)), given.count)
        print(f"{name}: {json.dumps(found[name].to_json())}", flush=True)
        for failure in found[name].failures[:5]:
            print(f"  {failure}", flush=True)
    failures = [f for r in found.values() for f in r.failures]
    summary = {
        "inputs": sum(r.inputs for r in found.values()),
        "failures": len(failures),
        "slowest_seconds": round(max(r.slowest[0] for r in found.values()), 3),
        "peak_mb": round(max(r.peak for r in found.values()) / 2**20),
        "targets": {name: result.to_json() for name, result in found.items()},
        "failed": failures[:LISTED],
    }
    print(json.dumps(summary | {"targets": None, "failed": None}))
    if given.json:
        write_json(given.json, stamp([given.seed]) | summary)


if __name__ == "__main__":
    main()
