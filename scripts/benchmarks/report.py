"""The rows of a run: printed as they come, and as JSON at the end."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.benchmarks.clock import cores


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: the row, as it is chosen on the command line.
        what: what was measured.
        value: the figure; a ratio has no unit.
        unit: of the figure.
        reference: what it is compared with, with the reference's own figure.
        goal: as the design has it; empty where there is none.
        met: whether it was reached; None where there is no goal, or nothing to judge by.
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
    """``goal`` and ``met`` of a row whose figure should be at most so much."""
    return {"goal": f"<= {goal:g}", "met": value <= goal}


def at_least(value: float, goal: float) -> dict[str, Any]:
    """``goal`` and ``met`` of a row whose figure should be at least so much."""
    return {"goal": f">= {goal:g}", "met": value >= goal}


_WIDTHS = (8, 46, 12, 9, 8)
_HEADINGS = ("row", "what", "measured", "goal", "")


def heading() -> str:
    """The table's first line."""
    return _line(*_HEADINGS, "reference, in the same run")


def line(row: Row) -> str:
    """A row of the table, its details indented below it."""
    verdict = {True: "met", False: "NOT MET", None: ""}[row.met]
    figure = f"{row.value:.3g}" if abs(row.value) < 100 else f"{row.value:.0f}"
    first = _line(row.name, row.what, f"{figure} {row.unit}".strip(), row.goal, verdict, row.reference)
    return "\n".join([first, *(f"{'':10}{name}: {_text(value)}" for name, value in row.details.items())])


def _line(*columns: str) -> str:
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
    """What the figures were measured on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def write(path: Path, about: dict[str, Any], rows: Sequence[Row], failed: dict[str, str]) -> None:
    """The whole run as one JSON document."""
    document = {"machine": about, "rows": [asdict(row) for row in rows], "failed": failed}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
