"""Measures mp3burst against references of the same run: ``scripts/bench [ROW ...]``."""

import argparse
import importlib
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts.benchmarks import clock, report
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.inputs import Inputs
from scripts.benchmarks.report import Row

#: Each row's function: it yields lines of the table.
ROWS = {
    "tool": "tool.tool",
    "encode": "scaling.encode",
    "copy": "tool.copy",
    "upload": "transfer.upload",
    "tus": "resumable.tus",
    "download": "transfer.download",
    "memory": "memory.memory",
    "path": "path.path",
    "events": "messages.messages",
    "login": "login.login",
    "cold": "cold.cold",
    "burst": "burst.burst",
    "fanout": "burst.fanout",
    "idle": "burst.idle",
    "knative": "knative.knative",
}


def measure(name: str) -> Callable[[Bench], Iterator[Row]]:
    """The function that measures a row."""
    module, _, function = ROWS[name].partition(".")
    found: Callable[[Bench], Iterator[Row]] = getattr(importlib.import_module(f"scripts.benchmarks.{module}"), function)
    return found


def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 where a row could not be measured, whatever the figures are."""
    given = _parser().parse_args(arguments)
    unknown = [name for name in given.rows if name not in ROWS]
    if unknown:
        print(f"There is no row {unknown[0]}: choose from {', '.join(ROWS)}.", file=sys.stderr)
        return 2
    if given.list:
        for name in ROWS:
            print(f"{name:10}{(measure(name).__doc__ or '').splitlines()[0]}")
        return 0
    about, rows, failed = report.machine(), list[Row](), dict[str, str]()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mp3burst" / "bench"
    size = given.size << 20 if given.size else (64 << 20 if given.quick else 4 << 30)
    rounds = given.rounds or (1 if given.quick else 5)
    clock.patience = given.patience
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(report.heading(), flush=True)
    chart = given.chart and given.origin / given.chart
    with Bench(Inputs(given.cache or cache), given.quick, rounds, size, chart) as bench:
        for name in given.rows or _possible():
            try:
                for row in measure(name)(bench):
                    rows.append(row)
                    print(report.line(row), flush=True)
            except Exception as error:  # the other rows are worth having
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name:10}could not be measured: {error}", flush=True)
                if not isinstance(error, OSError):
                    traceback.print_exc()
    missed = [row for row in rows if row.met is False]
    print(f"{sum(row.met is True for row in rows)} goals met, {len(missed)} not, {len(failed)} rows not measured.")
    if given.quick:
        print("The inputs were small: the goals are for the full ones, without --quick.")
    if given.json:
        report.write(given.origin / given.json, about, rows, failed)
    return 1 if failed else 0


def _possible() -> list[str]:
    """All rows; that of a cluster where one is named."""
    return [name for name in ROWS if name != "knative" or os.environ.get("CLUSTER_INGRESS")]


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"all of them, or some of: {', '.join(ROWS)}")
    parser.add_argument("--list", action="store_true", help="say what the rows are")
    parser.add_argument("--quick", action="store_true", help="small inputs: to see that it works, not for figures")
    parser.add_argument("--rounds", type=_count, help="how often each thing is measured (5; 1 with --quick)")
    parser.add_argument("--size", type=_count, metavar="MB", help="the large file of the memory rows (4096; 64)")
    parser.add_argument("--patience", type=_seconds, default=0.0, metavar="SECONDS", help="wait for a calm machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured there")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the model of row encode there, as SVG")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the videos are kept that are made once")
    parser.add_argument("--from", dest="origin", type=Path, default=Path(), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
