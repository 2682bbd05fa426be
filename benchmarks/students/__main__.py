"""Tables of students: what synthetic data are worth.

    python -m benchmarks.students                                          what is missing, most important rows first
    python -m benchmarks.students --table semantic --row both --seed 1     one row
    python -m benchmarks.students --report                                 docs/results.json and docs/results.md from what is there
    python -m benchmarks.students --quick                                  four rows, one seed

Results of rows are small files in --rows; those that were computed elsewhere can be copied there. Generated images and trained
students lie in --work; everything goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.students.data import Data
from benchmarks.students.report import QUICK_ROWS, gains, results, table_lines, write_report
from benchmarks.students.rows import Bench
from benchmarks.students.tables import ROWS, TABLES
from datasetdm.errors import DatasetDMError

RESULTS = ROOT / "benchmarks" / "results"
IMAGES = 512
"""Generated images, of the quick table too, so that both share rows."""
SEEDS = 3


def main(arguments: list[str] | None = None) -> None:
    """Measure rows, or report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--seed", type=int, help=f"default 0 to {SEEDS - 1}; with --quick 0")
    parser.add_argument("--rows", type=Path, help="folder of the results; default benchmarks/results/rows")
    parser.add_argument("--work", type=Path, default=RESULTS / "students.work", help="generated images and students")
    parser.add_argument("--images", type=int, default=IMAGES, help="generated images")
    parser.add_argument("--quick", action="store_true", help="four rows of the semantic table with one seed, printed")
    parser.add_argument("--report", action="store_true", help="write the report and measure nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the report")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except DatasetDMError as e:
        sys.exit(f"error: {e}")


def run(options: argparse.Namespace) -> None:
    """What the options ask for."""
    quick = options.quick
    rows = options.rows or (RESULTS / "rows-quick.work" if quick else RESULTS / "rows")
    bench = Bench(Data(options.images, options.work), rows)
    seeds = [options.seed] if options.seed is not None else list(range(1 if quick else SEEDS))
    if not options.report:
        names = [options.table] if options.table else [t for t in TABLES if not TABLES[t].needs]
        names = ["semantic"] if quick else names
        own = [options.row] if options.row else list(QUICK_ROWS if quick else ROWS)
        for seed, table, row in ((s, t, r) for s in seeds for t in names for r in own):
            _measure(bench, table, row, seed)
    if quick:
        found = results(bench, seeds)["tables"]["semantic"]
        print("\n".join(table_lines(found, gains(bench, "semantic", seeds), QUICK_ROWS)))
    elif options.report:
        print(*write_report(bench, list(range(SEEDS)), options.out), sep="\n")


def _measure(bench: Bench, table: str, row: str, seed: int) -> None:
    began = time.monotonic()
    value = bench.measure(table, row, seed)
    seconds = time.monotonic() - began
    print(f"{table} {row} seed {seed}: {value['metric']} {value['figure']:.3f} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
