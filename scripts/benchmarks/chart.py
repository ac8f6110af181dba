"""Draws a table of times by number of pods as an SVG with two logarithmic axes."""

import math
from collections.abc import Mapping
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 440, 70, 50, 90, 50
_COLOURS = ("#1b6ca8", "#c8553d", "#2a9d6f", "#7b4fa3", "#8a6d1b")


def draw(table: Mapping[str, Mapping[str, float]], title: str) -> str:
    """The SVG: a line for each row, and dashed what it would be if twice the pods took half the time.

    Args:
        table: for each line its seconds by the number of pods.
        title: above it.
    """
    pods = sorted({int(n) for line in table.values() for n in line})
    values = [value for line in table.values() for value in line.values()]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))

    def x(n: float) -> float:
        return _LEFT + math.log(n / pods[0]) / math.log(pods[-1] / pods[0]) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        part = math.log(max(value, low) / low) / math.log(high / low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    for n in pods:
        parts.append(_line([(x(n), y(low)), (x(n), y(high))], "#eee"))
        parts.append(f'<text x="{x(n):.0f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{n}</text>')
    mark = float(low)
    while mark <= high:
        parts.append(_line([(x(pods[0]), y(mark)), (x(pods[-1]), y(mark))], "#ddd"))
        parts.append(f'<text x="{_LEFT - 8}" y="{y(mark) + 4:.0f}" text-anchor="end">{mark:g} s</text>')
        mark *= 10
    for (name, line), colour in zip(table.items(), _COLOURS, strict=False):
        points = [(x(int(n)), y(value)) for n, value in sorted(line.items(), key=lambda item: int(item[0]))]
        first = line[str(pods[0])]
        ideal = [(x(n), y(first * pods[0] / n)) for n in pods if first * pods[0] / n >= low]
        parts.append(_line(ideal, colour, ' stroke-dasharray="3 4" opacity="0.5"'))
        parts.append(_line(points, colour, ' stroke-width="2"'))
        parts.append(
            f'<text x="{points[-1][0] + 8:.0f}" y="{points[-1][1] + 4:.0f}" fill="{colour}">{escape(name)}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">pods (dashed: linear)</text></svg>')
    return "\n".join(parts) + "\n"


def _line(points: list[tuple[float, float]], colour: str, more: str = "") -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}"{more}/>'
