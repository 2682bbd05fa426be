"""Kills at random moments: what is resumed must be equal, byte for byte, to what was never disturbed.

    python -m benchmarks.faults --json PATH [--rounds 24] [--seed 0] [--count 24] [--commands generate annotate fit export]
                                [--kills 20] [--others 8] [--work FOLDER]

In every round a command (generate, annotate, fit or export, in turn) is begun, killed by SIGKILL or SIGTERM when its output has
changed a random number of times, and resumed; after two kills it runs to its end. In every fourth round a second process of the
same command is started on the same output. Then the output is compared with that of an undisturbed run:

    rounds        that were run; `killed` counts the processes that died before they had finished, by signal
    lost          samples (files, for fit and export) that are missing
    duplicated    samples that are there twice
    differing     samples or files with other bytes
    leftovers     temporary files, locks and work folders that are still there

`workers` holds the same of rounds of `benchmarks.worker_faults`: `--kills` of workers and drivers, and `--others` of storage, disk,
memory and a damaged shard; `happened` counts the rounds in which the fault met its work. Those that are in the folder `--work`
are not run again. What a run leaves out (`--rounds 0`, or `--kills 0 --others 0`) stays in the file as it was.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import worker_faults
from benchmarks.common import Work as Units
from benchmarks.common import stamp
from benchmarks.killing import LOOK, Found, Running, Work, compare, contents, kill_at, said_by, written
from datasetdm import cli
from datasetdm.io.files import write_json

SIGNALS = (signal.SIGKILL, signal.SIGTERM)
KILLS = 2
"""Processes that are killed in a round, at most."""

IN_FINALISER = re.compile(
    r"Exception ignored in: .*?\n(?:datasetdm\.cli\.Terminated|KeyboardInterrupt)[^\n]*\n", re.DOTALL
)
"""What Python prints, and then ignores, if a signal arrives while an object is cleaned up: the run goes on to its end."""


def small_work(folder: Path, count: int = 24, steps: int = 2) -> dict[str, Work]:
    """Commands of a few seconds with the embedded model; what they read is made in `folder` first."""
    from itertools import islice

    from PIL import Image

    from datasetdm.readers import read

    images = folder / "images"
    images.mkdir()
    for i, sample in enumerate(islice(read("mini:test"), count)):
        Image.fromarray(sample.image).save(images / f"{i:02d}.png")
    return {
        "generate": Work(
            ("generate", "--prompts", "a photo of a dog", "two cats on a sofa", "a red car", "--count", str(count),
             "--steps", str(steps), "--batch", "2", "--device", "cpu"), True,
        ),
        "annotate": Work(("annotate", "--data", f"images:{images}", "--device", "cpu"), True),
        "fit": Work(
            ("fit", "--data", "mini:train", "--limit", "12", "--steps", "12", "--variants", "2", "--evaluate-every", "3",
             "--batch", "4", "--width", "32", "--tasks", "semantic", "--device", "cpu"),
        ),
        "export": Work(("export", "mini:train", "--format", "coco")),
    }  # fmt: skip


# ---------------------------------------------------------------------- processes
def start(work: Work, out: Path) -> Running:
    """Begin the command in a fork of this process, which has imported all that it needs: kills meet work, not imports."""
    return said_by(out.parent, lambda: cli.main([*work.words, "--out", str(out)]))


def import_all() -> None:
    """Load a model once, so that forks need not import."""
    from datasetdm.decoder.model import load_pair

    for module in ("outputs", "stages"):
        import_module(f"datasetdm.recipe.{module}")
    load_pair("mini", None, "cpu")


def growth(work: Work, out: Path) -> list[int]:
    """Sizes that an undisturbed run's output had, each once, in the order in which they came."""
    running, sizes = start(work, out), [0]
    while running.process.is_alive():
        size = written(out)
        if size != sizes[-1]:
            sizes.append(size)
        time.sleep(LOOK)
    code, said = running.end()
    if code:
        raise SystemExit(f"error: the undisturbed run ended with {code}: {said}")
    return sizes


# ---------------------------------------------------------------------- rounds
def is_done(work: Work, out: Path) -> bool:
    """Whether the command before has finished its output: it would refuse to write it again."""
    if work.store:
        return False
    return out.exists() and not (out / "work").exists() and any(out.iterdir())


def disturbed(
    work: Work, out: Path, sizes: Sequence[int], rng: np.random.Generator, together: bool
) -> tuple[Counter[str], int]:
    """Begin, kill and resume a command, then let it end; how many processes each signal ended, and how many were refused."""
    killed: Counter[str] = Counter()
    refused = 0
    for _ in range(KILLS):
        if is_done(work, out):
            break
        number = SIGNALS[int(rng.integers(2))]
        running = [start(work, out) for _ in range(2 if together else 1)]
        changes = int(rng.integers(1, max(2, len(sizes) // KILLS)))
        met = kill_at(running[0].process, out, changes, float(rng.uniform(0, 0.05)), number)
        killed[signal.Signals(number).name] += met
        for one in running:
            code, said = one.end()
            by_signal = (-number, 128 + number) if met and one is running[0] else ()
            was_refused = "being written by another process" in said
            refused += was_refused
            if code not in ((2, *by_signal) if was_refused else (0, 2, *by_signal)):
                raise SystemExit(f"error: a run ended with {code}: {said}")
            if "Traceback" in IN_FINALISER.sub("", said):
                raise SystemExit(f"error: a traceback: {said}")
    if not is_done(work, out):
        code, said = start(work, out).end()
        if code and not is_done(work, out):
            raise SystemExit(f"error: the resumed run ended with {code}: {said}")
    return killed, refused


def measure(works: Mapping[str, Work], folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Run rounds; the figures."""
    total, killed, refused, by_command = Found(), Counter[str](), 0, Counter[str]()
    undisturbed: dict[str, tuple[list[int], list[tuple[str, str]]]] = {}
    for number in range(rounds):
        name = list(works)[number % len(works)]
        work, out = works[name], folder / f"{name}-{number}"
        if name not in undisturbed:
            sizes = growth(work, folder / name)
            undisturbed[name] = sizes, contents(work, folder / name)
        sizes, right = undisturbed[name]
        together = number // len(works) % 4 == number % len(works)
        rng = np.random.default_rng((seed, number))
        signals, others = disturbed(work, out, sizes, rng, together)
        total.add(compare(right, work, out))
        by_command[name] += 1
        killed, refused = killed + signals, refused + others
        print(f"round {number}: {name}{', two processes' if together else ''}: killed {dict(signals)}", flush=True)
    return {
        "rounds": rounds,
        **vars(total),
        "killed": dict(killed),
        "refused_second_processes": refused,
        "rounds_by_command": dict(by_command),
    }


def main() -> None:
    """Disturb, compare and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=24, help="samples of a store")
    parser.add_argument("--commands", nargs="+", default=None, help="all by default")
    parser.add_argument("--kills", type=int, default=20, help="rounds with workers")
    parser.add_argument("--others", type=int, default=8, help="rounds with workers and other faults")
    parser.add_argument("--work", type=Path, default=Path("/tmp/datasetdm-faults"), help="folder of these rounds")
    given = parser.parse_args()
    import_all()
    figures = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if given.rounds:
            works = small_work(Path(folder), given.count)
            works = {name: works[name] for name in given.commands or works}
            figures |= stamp([given.seed]) | measure(works, Path(folder), given.rounds, given.seed)
        if given.kills or given.others:
            units = Units(given.work, {"seed": given.seed, "count": given.count, "kills": given.kills})
            found = worker_faults.measure(units, Path(folder), given.kills, given.others, given.seed, given.count)
            figures["workers"] = stamp([given.seed]) | found
    print(figures)
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
