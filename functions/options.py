"""The options of a conversion, as a user gives them and as the job's row keeps them."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from events.errors import Mp3burstError

#: kbit/s: the bit rates of MPEG-1 Layer III from 64 on (ISO/IEC 11172-3, table of bitrate_index).
BITRATES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
#: Seconds: no sound is longer, and no fade.
LONGEST, LONGEST_FADE = 360_000.0, 3600.0
#: Decibels, up or down.
LOUDEST = 30.0

_TIME = re.compile(
    r"(?:(?:([0-9]{1,3}):(?=[0-5]?[0-9]:))?([0-9]{1,4}):(?=[0-5]?[0-9](?:\.|$)))?([0-9]{1,6}(?:\.[0-9]{0,9})?)"
)
_DIGITS = re.compile(r"[0-9]{1,9}")  # of thousands Python makes no number
_DECIBELS = re.compile(r"([+-]?[0-9]{1,3}(?:\.[0-9]{0,9})?)(?: ?db)?", re.IGNORECASE)
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class BadOption(Mp3burstError):
    """An option has a value that makes no sense; ``field`` names it, the sentence gives the range."""

    status = 422

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to convert. None means that the user did not ask.

    Attributes:
        bitrate: constant bit rate in kbit/s, one of BITRATES.
        vbr: quality of variable bit rate, LAME's V0 (best) to V9.
        track: which audio track, from 0 in the file's order.
        start: where the MP3 begins, in seconds of the sound.
        end: where it ends, in seconds of the sound.
        fade_in: seconds over which it becomes as loud as it is.
        fade_out: seconds over which it becomes silent at its end.
        volume: decibels by which it becomes louder, or softer where it is below 0.
        normalize: whether it is brought to the loudness of broadcasts (EBU R 128).
        mono: whether the channels are mixed into one.
        cover: ``frame`` for a picture of the video, ``none`` for no picture, or the second of the video that shows it;
            None for the picture that the file brings along.
    """

    bitrate: int | None = None
    vbr: int | None = None
    track: int = 0
    start: float | None = None
    end: float | None = None
    fade_in: float | None = None
    fade_out: float | None = None
    volume: float | None = None
    normalize: bool = False
    mono: bool = False
    cover: str | float | None = None

    @classmethod
    def from_form(cls, form: Mapping[str, str]) -> Self:
        """Options from the text that a user typed: a bit rate as ``192k`` or ``192``, a time as ``83.5`` or ``1:23.5``.

        Raises:
            BadOption: an unknown name, a value out of range, or two that exclude each other.
        """
        for name in form:
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise BadOption(name, f"{name} is no option: use {known}.")
        values = {name: _PARSERS[name](name, text) for name, text in form.items() if text}
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        if self.bitrate is not None and self.vbr is not None:
            raise BadOption("vbr", "Choose bitrate or vbr, not both.")
        if self.end is None:
            return
        length = self.end - (self.start or 0.0)
        if length <= 0:
            raise BadOption("end", "end must be later than start, and than the beginning.")
        if (self.fade_in or 0.0) + (self.fade_out or 0.0) > length:
            field = "fade_in" if (self.fade_in or 0.0) > length else "fade_out"
            raise BadOption(field, f"The fades are longer than the {length:g} seconds that start and end leave.")

    def to_json(self) -> str:
        """The options that were asked for, as a JSON object."""
        defaults = type(self)()
        asked = {name: value for name, value in asdict(self).items() if value != getattr(defaults, name)}
        return json.dumps(asked)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The options from ``to_json``."""
        return cls(**json.loads(text))


def _bitrate(name: str, text: str) -> int:
    digits = text.strip().lower().removesuffix("k")
    if _DIGITS.fullmatch(digits) and int(digits) in BITRATES:
        return int(digits)
    raise BadOption(name, f"{name} must be one of {', '.join(f'{rate}k' for rate in BITRATES)}.")


def _whole(name: str, text: str, least: int, most: int) -> int:
    digits = text.strip()
    if _DIGITS.fullmatch(digits) and least <= int(digits) <= most:
        return int(digits)
    raise BadOption(name, f"{name} must be a whole number from {least} to {most}.")


def _seconds(name: str, text: str, most: float = LONGEST) -> float:
    if found := _TIME.fullmatch(text.strip()):
        hours, minutes, seconds = found.groups()
        value = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
        if value <= most:
            return value
    raise BadOption(name, f"{name} must be seconds, as 83.5, or a time, as 1:23.5, of at most {most:g} seconds.")


def _decibels(name: str, text: str) -> float:
    if (found := _DECIBELS.fullmatch(text.strip())) and abs(value := float(found[1])) <= LOUDEST:
        return value
    raise BadOption(name, f"{name} must be decibels from -{LOUDEST:g} to {LOUDEST:g}, as 6 or -3.5dB.")


def _truth(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise BadOption(name, f"{name} must be true or false.")


def _cover(name: str, text: str) -> str | float:
    word = text.strip().lower()
    if word in ("frame", "none"):
        return word
    try:
        return _seconds(name, word)
    except BadOption as error:
        raise BadOption(name, f"{name} must be frame, none, or the second of the video, as 83.5 or 1:23.5.") from error


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "bitrate": _bitrate,
    "vbr": lambda name, text: _whole(name, text, 0, 9),
    "track": lambda name, text: _whole(name, text, 0, 99),
    "start": _seconds,
    "end": _seconds,
    "fade_in": lambda name, text: _seconds(name, text, LONGEST_FADE),
    "fade_out": lambda name, text: _seconds(name, text, LONGEST_FADE),
    "volume": _decibels,
    "normalize": _truth,
    "mono": _truth,
    "cover": _cover,
}
