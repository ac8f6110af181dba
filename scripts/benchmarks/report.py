"""Prints the rows of a run as they are measured, and writes them as JSON at the end."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.timing import cpus


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: the row's name on the command line.
        what: what was measured.
        value: the figure.
        unit: the figure's unit; ``x`` is a ratio to the reference.
        reference: what the figure is compared with, and the reference's own figure.
        goal: the design's goal; empty if there is none.
        met: whether the goal was reached; None if there is none.
        details: everything else worth keeping.
    """

    name: str
    what: str
    value: float
    unit: str
    reference: str
    goal: str = ""
    met: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


def at_most(value: float, goal: float) -> dict[str, Any]:
    """Returns ``goal`` and ``met`` of a row whose figure has an upper limit."""
    return {"goal": f"<= {goal:g}", "met": value <= goal}


def at_least(value: float, goal: float) -> dict[str, Any]:
    """Returns ``goal`` and ``met`` of a row whose figure has a lower limit."""
    return {"goal": f">= {goal:g}", "met": value >= goal}


_WIDTHS = (8, 46, 12, 9, 8)
_HEADINGS = ("row", "what", "measured", "goal", "")


def heading() -> str:
    """Returns the table's first line."""
    return _columns(*_HEADINGS, "reference in the same run")


def line(row: Row) -> str:
    """Returns a row as a line of the table, with its details indented below it."""
    verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
    figure = f"{row.value:.3g}" if abs(row.value) < 100 else f"{row.value:.0f}"
    first = _columns(row.name, row.what, f"{figure} {row.unit}".strip(), row.goal, verdict, row.reference)
    return "\n".join([first, *(f"{'':10}{name}: {_text(value)}" for name, value in row.details.items())])


def _columns(*columns: str) -> str:
    *fixed, last = columns
    return "  ".join([*(text.ljust(width) for text, width in zip(fixed, _WIDTHS, strict=True)), last]).rstrip()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return str(value)


def machine() -> dict[str, Any]:
    """Describes the machine that the figures are measured on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": cpus(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def write(path: Path, machine: dict[str, Any], rows: Sequence[Row], failed: dict[str, str]) -> None:
    """Writes the run as one JSON document."""
    document = {"machine": machine, "rows": [asdict(row) for row in rows], "failed": failed}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
