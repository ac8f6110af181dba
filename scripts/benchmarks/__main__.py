"""Measures mp3burst against references in the same run."""

import argparse
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts.benchmarks import (
    chart,
    convert,
    edits,
    end_to_end,
    events,
    follow,
    key,
    knative,
    login,
    report,
    scale,
    timing,
    transfer,
)
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.inputs import Inputs
from scripts.benchmarks.report import Row

#: Each name on the command line and the function that yields its lines of the table.
ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "tool": convert.tool,
    "encode": convert.encode,
    "copy": convert.copy,
    "upload": transfer.upload,
    "tus": transfer.tus,
    "download": transfer.download,
    "edits": edits.edits,
    "line": edits.line,
    "path": end_to_end.path,
    "fanout": end_to_end.fanout,
    "scale": scale.scale,
    "events": events.events,
    "follow": follow.follow,
    "login": login.login,
    "key": key.key,
    "knative": knative.knative,
}


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if a row could not be measured, whatever the figures are."""
    args = _parser().parse_args(arguments)
    unknown = [name for name in args.rows if name not in ROWS]
    if unknown:
        print(f"There is no row {unknown[0]}: choose from {', '.join(ROWS)}.", file=sys.stderr)
        return 2
    if args.list:
        for name, measure in ROWS.items():
            print(f"{name:10}{(measure.__doc__ or '').splitlines()[0]}")
        return 0
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    timing.calm_timeout = args.calm_timeout
    machine = report.machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(report.heading(), flush=True)
    inputs = Inputs(args.cache or home / "mp3burst" / "bench")
    rounds = args.rounds or (1 if args.quick else 5)
    with Bench(inputs, args.quick, rounds) as bench:
        rows, failed = _measure(bench, args.rows or _available())
    missed = sum(row.met is False for row in rows)
    print(f"{sum(row.met is True for row in rows)} goals met, {missed} not met, {len(failed)} rows not measured.")
    if args.quick:
        print("The inputs were small. The goals are for full inputs, without --quick.")
    if args.chart and not chart.write(rows, args.origin / args.chart):
        print("There is nothing to draw: rows scale and encode have a speedup by pods.", file=sys.stderr)
    if args.json:
        report.write(args.origin / args.json, machine, rows, failed)
    return 1 if failed else 0


def _measure(bench: Bench, names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """Measures and prints rows; returns their lines, and the error of each row that could not be measured."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            for row in ROWS[name](bench):
                rows.append(row)
                print(report.line(row), flush=True)
        except Exception as error:  # the other rows are still worth having
            failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name:10}could not be measured: {error}", flush=True)
            if not isinstance(error, OSError):
                traceback.print_exc()
    return rows, failed


def _available() -> list[str]:
    """Returns every row, and that of a cluster only if CLUSTER_INGRESS names one."""
    return [name for name in ROWS if name != "knative" or os.environ.get("CLUSTER_INGRESS")]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to measure (everything): {', '.join(ROWS)}")
    parser.add_argument("--list", action="store_true", help="list the rows and what they measure")
    parser.add_argument("--quick", action="store_true", help="small inputs: checks that it works, not for figures")
    parser.add_argument("--rounds", type=_count, help="how often to measure each thing (5; 1 with --quick)")
    parser.add_argument(
        "--calm-timeout",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="wait at most this long for an idle machine before each measurement (0)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to this file")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="draw the speedup of rows scale and encode")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where to keep the videos, which are made once")
    parser.add_argument("--from", dest="origin", type=Path, default=Path(), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
