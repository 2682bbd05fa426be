"""Tables of students: what synthetic data are worth.

    python -m benchmarks.students                                          what is missing, most important rows first
    python -m benchmarks.students --table semantic --row both --seed 1     one row
    python -m benchmarks.students --curve steps                            rows with one setting at several values
    python -m benchmarks.students --curve steps --at 4000 --row both       one point
    python -m benchmarks.students --data-only                              what rows learn from: before several processes measure
    python -m benchmarks.students --report                                 docs/results.* from what is there
    python -m benchmarks.students --sheet semantic                         hits and misses of the rows real and both
    python -m benchmarks.students --quick                                  four rows, one seed

Results of rows are small files in --rows; those that were computed elsewhere can be copied there. Generated images and trained
students lie in --work; everything goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ROOT
from benchmarks.students.curves import CURVES, measure_point, plan_points
from benchmarks.students.data import Data
from benchmarks.students.gains import found_rows, results
from benchmarks.students.report import QUICK_ROWS, SHEET, table_lines, write_report
from benchmarks.students.rows import Bench, needs_of
from benchmarks.students.sheet import draw_sheet
from benchmarks.students.tables import ROWS, TABLES
from datasetdm.errors import DatasetDMError

RESULTS = ROOT / "benchmarks" / "results"
IMAGES = 512
"""Generated images, of the quick table too, so that both share rows."""
GROUPS = (("semantic", "semantic_pretrained"), ("instance", "depth", "pose"), ("zero_shot", "long_tail", "shift"))
"""Most important first."""
FIRST_SEEDS = 2
"""That all groups are measured with before the third one of any."""


def main(arguments: list[str] | None = None) -> None:
    """Measure rows, or report them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--curve", choices=CURVES)
    parser.add_argument("--at", help="with --curve: one value alone")
    parser.add_argument("--seed", type=int, help="default the table's; with --quick 0")
    parser.add_argument("--rows", type=Path, help="folder of the results; default benchmarks/results/rows")
    parser.add_argument("--work", type=Path, default=RESULTS / "students.work", help="generated images and students")
    parser.add_argument("--images", type=int, default=IMAGES, help="generated images")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto; rows of both have the same names")
    parser.add_argument("--quick", action="store_true", help="four rows of the semantic table with one seed, printed")
    parser.add_argument("--data-only", action="store_true", help="make images, labels and renders, measure nothing")
    parser.add_argument("--report", action="store_true", help="write the report and measure nothing")
    parser.add_argument(
        "--sheet", choices=[t for t in TABLES if "mIoU" in TABLES[t].metric], help="draw hits and misses"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the report")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except DatasetDMError as e:
        sys.exit(f"error: {e}")


def run(options: argparse.Namespace) -> None:
    """What the options ask for."""
    torch.set_num_threads(1)  # rows of one machine are equal, bit by bit; several processes use several cores
    rows = options.rows or (RESULTS / "rows-quick.work" if options.quick else RESULTS / "rows")
    bench = Bench(Data(options.images, options.work, device=options.device), rows)
    if options.report:
        print(*write_report(bench, options.out), sep="\n")
        return
    if options.sheet:
        path = options.out / SHEET.format(table=options.sheet)
        draw_sheet(bench, options.sheet, seed=options.seed or 0).save(path, quality=85)
        print(path)
        return
    if options.data_only:
        for table, row in dict.fromkeys((t, r) for t, r, _ in plan(options.table, options.row, None)):
            bench.make_data(table, row)
            print(f"{table} {row}: the data are there", flush=True)
        return
    if options.curve:
        _measure_points(bench, options)
        return
    own = plan("semantic", QUICK_ROWS, [options.seed or 0]) if options.quick else None
    for table, row, seed in own or plan(options.table, options.row, options.seed):
        _measure(bench, table, row, seed)
    if options.quick:
        found = found_rows(bench, "semantic", [options.seed or 0])
        print("\n".join(table_lines(results(bench, "semantic", found), QUICK_ROWS)))
    elif not options.table:
        _measure_points(bench, options)


def plan(
    table: str | None, row: str | Sequence[str] | None, seed: int | Sequence[int] | None
) -> Iterator[tuple[str, str, int]]:
    """(table, row, seed) of all that is asked for, in the order in which it is measured; None is whatever there is."""
    rows = [row] if isinstance(row, str) else row
    seeds = [seed] if isinstance(seed, int) else seed
    for few in (True, False):
        for group in GROUPS:
            tables = [t for t in group if t == table or (table is None and not needs_of(t))]
            for own in range(max(TABLES[t].seeds for t in group)) if seeds is None else seeds:
                if (own < FIRST_SEEDS) == few:
                    yield from (
                        (t, r, own)
                        for t in tables
                        for r in rows or TABLES[t].rows
                        if seeds is not None or own < TABLES[t].seeds
                    )


def _measure(bench: Bench, table: str, row: str, seed: int) -> None:
    began = time.monotonic()
    _show(f"{table} {row} seed {seed}", bench.measure(table, row, seed), began)


def _measure_points(bench: Bench, options: argparse.Namespace) -> None:
    for curve, value, row, seed in plan_points(options.curve, options.at, options.row, options.seed):
        began = time.monotonic()
        _show(f"{curve} {value} {row} seed {seed}", measure_point(bench, curve, value, row, seed), began)


def _show(what: str, value: Mapping[str, Any], began: float) -> None:
    print(f"{what}: {value['metric']} {value['figure']:.3f} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
