"""Draws the speedup of many pods, as measured and by the model. Only this module needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.benchmarks.report import Row

#: What a row's details call the speedup by the number of pods.
MEASURED: Final = "speedup by pods"
MODELED: Final = "the model's speedup"
# Okabe and Ito's palette, which color-blind people can distinguish.
_COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_INK: Final = "#222222"


def write(rows: Sequence[Row], png: Path) -> bool:
    """Writes the chart of the rows that have a speedup by pods; returns False if there are none."""
    curves = _curves(rows)
    if not curves:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    most = max(max(speedups) for _, speedups, _ in curves)
    axes.plot([1, most], [1, most], color="#bbbbbb", ls=":", label="as many times as pods")
    for (name, speedups, is_measured), color in zip(curves, _COLORS, strict=False):
        marker = "o" if is_measured else ""
        line = "" if is_measured else "-"
        axes.plot(list(speedups), list(speedups.values()), color=color, label=name, marker=marker, ls=line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    ticks = [2**power for power in range(most.bit_length())]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("encode pods")
    axes.set_ylabel("times as fast as one")
    axes.grid(color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(png, dpi=100, metadata={"Software": "mp3burst"})
    return True


def _curves(rows: Sequence[Row]) -> list[tuple[str, dict[int, float], bool]]:
    """Returns the curves: name, speedup by pods, and whether it was measured."""
    curves = {}
    for row in rows:
        what = row.what.partition(":")[0]
        if MEASURED in row.details:
            curves[f"{what}, measured"] = _numbers(row.details[MEASURED]), True
        if MODELED in row.details:
            curves[f"{what}, model"] = _numbers(row.details[MODELED]), False
    return [(name, speedups, is_measured) for name, (speedups, is_measured) in curves.items()]


def _numbers(speedups: Mapping[str, float]) -> dict[int, float]:
    return {int(pods): speedup for pods, speedup in speedups.items()}
