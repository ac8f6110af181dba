"""Draws a recording as a PNG and as a self-contained HTML page. Only this module needs matplotlib."""

import io
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.loadtest.accounting import Line, Usage, sentences, table, usage_of
from scripts.loadtest.recording import ENDED, Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Each function has the same color in every chart (Okabe and Ito's palette, which color-blind people can distinguish).
_COLORS = {
    "convert": "#d55e00",
    "encode": "#e69f00",
    "join": "#f0e442",
    "upload": "#0072b2",
    "status": "#56b4e9",
    "notify": "#009e73",
    "sweep": "#999999",
    "register": "#cc79a7",
    "login": "#8a5a83",
}
_OTHER = "#555555"
_ALWAYS = "#d0d0d0"
_INK = "#222222"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
svg {{ width: 100%; height: auto }}
pre {{ overflow-x: auto }}
</style></head><body>
<h1>{title}</h1>
{svg}
<pre>{table}</pre>
{sentences}
</body></html>
"""


def write(recording: Recording, png: Path, page: Path) -> None:
    """Writes the PNG and the page."""
    usage = usage_of(recording)
    figure = draw(recording, usage)
    figure.savefig(png, dpi=100, metadata={"Software": "mp3burst"})
    page.write_text(html(recording, usage, figure))


def html(recording: Recording, usage: Usage, figure: "Figure") -> str:
    """Returns the page: the chart as SVG, the table, and the sentences."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    return _PAGE.format(
        title=escape(title_of(recording)),
        svg=svg[svg.index("<svg") :],
        table=escape(table(usage)),
        sentences="\n".join(f"<p>{escape(each)}</p>" for each in (*sentences(recording, usage), _machine(recording))),
    )


def title_of(recording: Recording) -> str:
    """Returns a one-line description of what was measured."""
    where = {"embedded": "the embedded platform", "knative": "Knative"}.get(recording.platform, recording.platform)
    return f"{recording.what} on {where}"


def draw(recording: Recording, usage: Usage) -> "Figure":
    """Draws jobs and events, pods by function, CPU time, and pod-seconds compared with pods that are always on."""
    from matplotlib.figure import Figure

    # Of idle time there are no jobs to draw.
    heights = (*(() if recording.is_idle else (2.5,)), 2.5, 1.7, 0.9 + 0.18 * len(_bars_of(usage)))
    figure = Figure(figsize=(9, sum(heights) + 0.4), layout="constrained")
    *jobs, pods, cpu, bars = figure.subplots(len(heights), 1, height_ratios=heights)
    figure.suptitle(title_of(recording), fontweight="bold")
    times = [sample.at for sample in recording.samples]
    for axes in jobs:
        _jobs(axes, recording, times)
    _pods(pods, recording, times, usage)
    _cpu(cpu, recording, times, usage)
    for axes in (*jobs, pods, cpu):
        axes.set_xlim(0, max(usage.seconds, 0.1))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#eeeeee")
    cpu.set_xlabel("seconds")
    _bars(bars, usage)
    for axes in (*jobs, pods, cpu, bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
    return figure


def _jobs(axes: "Axes", recording: Recording, times: Sequence[float]) -> None:
    samples = recording.samples
    axes.step(
        times, [sum(one.jobs.values()) for one in samples], where="post", color=_INK, ls=":", label="jobs accepted"
    )
    ended = [sum(one.jobs.get(state, 0) for state in ENDED) for one in samples]
    axes.step(times, ended, where="post", color="#009e73", lw=2, label="jobs ended")
    waiting = [sum(one.queues.values()) for one in samples]
    axes.fill_between(times, waiting, step="post", color="#e69f00", alpha=0.4, lw=0, label="events in queues")
    if any(one.pieces for one in samples):
        axes.step(times, [one.pieces for one in samples], where="post", color="#0072b2", ls=":", label="pieces")
        axes.step(times, [one.encoded for one in samples], where="post", color="#0072b2", lw=2, label="pieces encoded")
    axes.set_title("Jobs, and events that wait or are being handled", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def _pods(axes: "Axes", recording: Recording, times: Sequence[float], usage: Usage) -> None:
    names = recording.functions()
    if names:
        series = [[one.pods.get(name, 0) for one in recording.samples] for name in names]
        axes.stackplot(times, series, labels=names, colors=[_COLORS.get(name, _OTHER) for name in names], step="post")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
    axes.axhline(usage.work.peak, color=_INK, ls="--", lw=0.8)
    axes.annotate(
        f"always on, the peak of each function: {usage.work.peak}",
        (0, usage.work.peak),
        (4, 3),
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_title("Pods by function", loc="left", fontsize=10)
    axes.margins(y=0.15)


def _cpu(axes: "Axes", recording: Recording, times: Sequence[float], usage: Usage) -> None:
    first = recording.samples[0].cpu if recording.samples else {}
    standing = {line.name for line in usage.standing}
    work: list[float] = []
    rest: list[float] = []
    for sample in recording.samples:
        grown = {name: value - first.get(name, 0.0) for name, value in sample.cpu.items()}
        work.append(sum(value for name, value in grown.items() if name not in standing))
        rest.append(sum(value for name, value in grown.items() if name in standing))
    labels = (
        f"functions: {usage.work.cpu:.1f} s",
        f"what runs all the time: {sum(o.cpu for o in usage.standing):.1f} s",
    )
    axes.stackplot(times, work, rest, labels=labels, colors=("#4a7c9b", _OTHER))
    axes.set_title("CPU-seconds used", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _bars_of(usage: Usage) -> list[Line]:
    return [line for line in (*usage.functions, *usage.standing, usage.total) if line.peak]


def _bars(axes: "Axes", usage: Usage) -> None:
    lines = _bars_of(usage)
    places = range(len(lines))
    axes.barh(places, [line.always for line in lines], 0.8, color=_ALWAYS, label="as many as the peak, always on")
    colors = [_COLORS.get(line.name, _OTHER) for line in lines]
    axes.barh(places, [line.pods for line in lines], 0.4, color=colors, label="measured", zorder=2)
    axes.set_yticks(places, [_label(line) for line in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(
        f"Pod-seconds in {usage.seconds:.0f} s, compared with pods that are always on", loc="left", fontsize=10
    )
    axes.legend(frameon=False, fontsize=8)


def _label(line: Line) -> str:
    # Servers and the broker are always on: there is nothing that they could be compared with.
    compared = f" of {line.always:.0f}" if line.always >= line.pods else ""
    return f"{line.name} ({line.pods:.0f}{compared})"


def _machine(recording: Recording) -> str:
    about = {**recording.machine}
    when = datetime.fromisoformat(about.pop("when")).strftime("%d %B %Y") if "when" in about else ""
    return ", ".join(filter(None, [when, *(f"{name} {value}" for name, value in about.items())])) + "."
