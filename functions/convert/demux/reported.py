"""Whether what a reader says is what a reader of ours could say: the file may have got hold of it."""

import json
import math
from collections.abc import Callable
from typing import Any, Final

from functions.convert.demux.child.remuxer import CONTAINERS


class Nonsense(Exception):
    """No reader of ours says so."""


#: Numbers beyond it are no seconds, samples or packets of any sound.
_MOST: Final = 1e12


def _number(value: Any) -> bool:
    # Compared before it is made a float, which an integer of JSON may be too large for.
    return type(value) in (int, float) and -_MOST <= value <= _MOST and math.isfinite(value)


def _amount(value: Any) -> bool:
    return _number(value) and value >= 0


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _container(value: Any) -> bool:
    return _text(value) and value in CONTAINERS  # it becomes part of what ffmpeg is told


def _tags(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _chapters(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, list) and len(one) == 3 and _number(one[0]) and _number(one[1]) and _text(one[2])
        for one in value
    )


_FAULT: Final[dict[str, Callable[[Any], bool]]] = {"fault": _text}
_SOUND: Final[dict[str, Callable[[Any], bool]]] = {
    "codec": _text,
    "container": _container,
    **dict.fromkeys(("rate", "channels", "packets", "errors"), _count),
    **dict.fromkeys(("skipped", "discarded"), _number),
    **dict.fromkeys(("duration", "missing"), _amount),
    "tags": _tags,
    "chapters": _chapters,
}
_MOMENT: Final[dict[str, Callable[[Any], bool]]] = dict.fromkeys(("offset", "reach", "pixel"), _number)
_MORE: Final[dict[str, Callable[[Any], bool]]] = {"detail": _text, "tracks": _count, "dropped": _count}


def report_of(data: bytes | bytearray, sound: bool) -> dict[str, Any]:
    """A report, every value of the kind that it should be.

    Args:
        data: as it came.
        sound: whether it is to be of a track, else of a moment (``moment.take``).

    Raises:
        Nonsense: it is none.
    """
    try:
        report = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Nonsense(f"no JSON: {error}") from error
    if not isinstance(report, dict):
        raise Nonsense("no report")
    needed = _FAULT if "fault" in report else _SOUND if sound else _MOMENT
    kinds = {**needed, **_MORE}
    for name in {*needed, *report}:
        if name not in kinds or name not in report or not kinds[name](report[name]):
            raise Nonsense(f"a report without {name[:100]!r} as it should be")
    return report
