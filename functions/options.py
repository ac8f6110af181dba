"""The options of a conversion: parsed from a user's form, and stored as JSON in the job's row."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from events.errors import Mp3burstError

#: kbit/s: the bit rates of MPEG-1 Layer III of 64 and above (ISO/IEC 11172-3, table of bitrate_index).
BITRATES: Final = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
#: kbit/s if the user chooses nothing.
DEFAULT_BITRATE: Final = 192
#: What LAME's V0 to V9 need for music in stereo at 44.1 kHz, kbit/s (lame 3.100, doc/html/detailed.html).
VBR_BITRATES: Final = (245, 225, 190, 175, 165, 130, 115, 100, 85, 65)
#: Seconds: the latest position in the audio, 100 hours.
MAX_SECONDS: Final = 360_000.0
MAX_FADE: Final = 3600.0  # seconds
#: Decibels, up or down.
MAX_VOLUME: Final = 30.0
MAX_TRACK: Final = 99
#: LAME's lowest quality of variable bit rate.
MAX_VBR: Final = 9

#: What each option does, for the help of commands.
HELP: Final[Mapping[str, str]] = {
    "bitrate": "bit rate: " + ", ".join(f"{rate}k" for rate in BITRATES) + " (default: 192k)",
    "vbr": "variable bit rate of this quality instead, from 0 (best) to 9",
    "track": "audio track to convert, counted from 0 (default: the file's); 0,1 makes stereo of two mono tracks",
    "start": "where the MP3 starts, in seconds (83.5) or as a time (1:23.5)",
    "end": "where the MP3 ends",
    "fade_in": "length of the fade-in in seconds",
    "fade_out": "length of the fade-out in seconds",
    "volume": "volume change in decibels, from -30 to 30: 6 or -3.5dB",
    "normalize": "normalize the loudness to -16 LUFS (EBU R 128)",
    "mono": "mix all channels into one",
    "cover": "cover image: frame, none, or the second of the video to take it from (default: the file's own cover)",
    "gaps": "parts of the file without sound: skip them, or fill them with silence (default: skip)",
}

#: Characters of an option's value, and of an unknown option's name in an error.
_MAX_VALUE: Final = 64
_TIME: Final = re.compile(
    r"(?:(?:([0-9]{1,3}):(?=[0-5]?[0-9]:))?([0-9]{1,4}):(?=[0-5]?[0-9](?:\.|$)))?([0-9]{1,6}(?:\.[0-9]{0,9})?)"
)
_DIGITS: Final = re.compile(r"[0-9]{1,9}")  # int() rejects thousands of digits
_TRACKS: Final = re.compile(r"(0*[0-9]{1,2})(?: *, *(0*[0-9]{1,2}))?")
_DECIBELS: Final = re.compile(r"([+-]?[0-9]{1,3}(?:\.[0-9]{0,9})?)(?: ?db)?", re.IGNORECASE)
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")


class BadOption(Mp3burstError):
    """An option is unknown or has an invalid value; ``field`` names it, the message says what is allowed."""

    status = 422

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field

    @property
    def fields(self) -> dict[str, str]:
        """What is wrong with which field, as responses have it."""
        return {self.field: str(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to convert a video. None means that the user did not choose.

    Attributes:
        bitrate: constant bit rate in kbit/s, one of BITRATES.
        vbr: quality of the variable bit rate, LAME's V0 (best) to V9.
        track: number of the audio track in the file, from 0; two numbers of mono tracks that become the left and the
            right channel; None for the file's default.
        start: where the MP3 begins, in seconds from the start of the audio.
        end: where the MP3 ends, in seconds from the start of the audio.
        fade_in: duration of the fade-in at the start, in seconds.
        fade_out: duration of the fade-out at the end, in seconds.
        volume: change of volume in decibels; negative is quieter.
        normalize: whether to normalize the loudness to the level of broadcasts (EBU R 128).
        mono: whether to mix the channels into one.
        cover: ``frame`` for a frame of the video, the second of the video from which to take the frame, ``none`` for no
            cover; None for the picture embedded in the file.
        gaps: ``silence`` to fill parts of the file that have no sound with silence, None to leave them out.
    """

    bitrate: int | None = None
    vbr: int | None = None
    track: int | tuple[int, int] | None = None
    start: float | None = None
    end: float | None = None
    fade_in: float | None = None
    fade_out: float | None = None
    volume: float | None = None
    normalize: bool = False
    mono: bool = False
    cover: str | float | None = None
    gaps: str | None = None

    @classmethod
    def from_form(cls, form: Mapping[str, str]) -> Self:
        """Parses options that a user typed: a bit rate as ``192k`` or ``192``, a time as ``83.5`` or ``1:23.5``.

        Raises:
            BadOption: a name is unknown, a value is invalid, or two options exclude each other.
        """
        for name in form:
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise BadOption(name[:_MAX_VALUE], f"Unknown option {name[:_MAX_VALUE]}: use {known}.")
            if len(form[name]) > _MAX_VALUE:
                raise BadOption(name, f"{name} is too long: use at most {_MAX_VALUE} characters.")
        values = {name: _PARSERS[name](name, text) for name, text in form.items() if text}
        options = cls(**values)
        options._check()
        return options

    def _check(self) -> None:
        if self.bitrate is not None and self.vbr is not None:
            raise BadOption("vbr", "bitrate and vbr exclude each other: set only one of them.")
        if self.end is None:
            return
        length = self.end - (self.start or 0.0)
        if length <= 0:
            raise BadOption("end", "end must be later than start (0 if you leave it out).")
        if (self.fade_in or 0.0) + (self.fade_out or 0.0) > length:
            field = "fade_in" if (self.fade_in or 0.0) > length else "fade_out"
            raise BadOption(field, f"The fades do not fit into {length:g} seconds: shorten them or move start or end.")

    def to_json(self) -> str:
        """Returns the options that differ from their defaults, as a JSON object."""
        defaults = type(self)()
        chosen = {name: value for name, value in asdict(self).items() if value != getattr(defaults, name)}
        return json.dumps(chosen)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parses the output of ``to_json``."""
        values = json.loads(text)
        if isinstance(values.get("track"), list):
            left, right = values["track"]
            values["track"] = (left, right)
        return cls(**values)


def _bitrate(name: str, text: str) -> int:
    digits = text.strip().lower().removesuffix("k")
    if _DIGITS.fullmatch(digits) and int(digits) in BITRATES:
        return int(digits)
    raise BadOption(name, f"{name} must be one of {', '.join(f'{rate}k' for rate in BITRATES)}.")


def _integer(name: str, text: str, maximum: int) -> int:
    digits = text.strip()
    if _DIGITS.fullmatch(digits) and int(digits) <= maximum:
        return int(digits)
    raise BadOption(name, f"{name} must be a whole number from 0 to {maximum}.")


def _track(name: str, text: str) -> int | tuple[int, int]:
    found = _TRACKS.fullmatch(text.strip())
    if found is None:
        raise BadOption(
            name,
            f"{name} must be a number from 0 to {MAX_TRACK}, or two of mono tracks for left and right, such as 0,1.",
        )
    if found[2] is None:
        return int(found[1])
    left, right = int(found[1]), int(found[2])
    if left == right:
        raise BadOption(name, f"{name} names track {left} twice: name two different mono tracks for left and right.")
    return left, right


def parse_time(name: str, text: str, maximum: float = MAX_SECONDS) -> float:
    """Returns the seconds of a time such as ``83.5`` or ``1:23.5``.

    Raises:
        BadOption: it is none, or later than ``maximum``; ``name`` is what the message calls it.
    """
    if found := _TIME.fullmatch(text.strip()):
        hours, minutes, seconds = found.groups()
        value = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
        if value <= maximum:
            return value
    raise BadOption(name, f"{name} must be a time such as 83.5 or 1:23.5, at most {maximum:g} seconds.")


def _decibels(name: str, text: str) -> float:
    if (found := _DECIBELS.fullmatch(text.strip())) and abs(value := float(found[1])) <= MAX_VOLUME:
        return value
    raise BadOption(name, f"{name} must be decibels from -{MAX_VOLUME:g} to {MAX_VOLUME:g}, such as 6 or -3.5dB.")


def _boolean(name: str, text: str) -> bool:
    value = text.strip().lower()
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise BadOption(name, f"{name} must be true or false.")


def _cover(name: str, text: str) -> str | float:
    value = text.strip().lower()
    if value in ("frame", "none"):
        return value
    try:
        return parse_time(name, value)
    except BadOption as error:
        raise BadOption(name, f"{name} must be frame, none, or a time in the video such as 83.5 or 1:23.5.") from error


def _gaps(name: str, text: str) -> str | None:
    value = text.strip().lower()
    if value not in ("skip", "silence"):
        raise BadOption(name, f"{name} must be skip or silence.")
    return None if value == "skip" else value


_PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "bitrate": _bitrate,
    "vbr": lambda name, text: _integer(name, text, MAX_VBR),
    "track": _track,
    "start": parse_time,
    "end": parse_time,
    "fade_in": lambda name, text: parse_time(name, text, MAX_FADE),
    "fade_out": lambda name, text: parse_time(name, text, MAX_FADE),
    "volume": _decibels,
    "normalize": _boolean,
    "mono": _boolean,
    "cover": _cover,
    "gaps": _gaps,
}
