"""The options of a conversion, as a user gives them and as the job's row keeps them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from events.errors import Mp3burstError

#: kbit/s: the bit rates of MPEG-1 Layer III from 64 on (ISO/IEC 11172-3, table of bitrate_index).
BITRATES = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


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
    """

    bitrate: int | None = None
    vbr: int | None = None
    track: int = 0

    @classmethod
    def from_form(cls, form: Mapping[str, str]) -> Self:
        """Options from the text that a user typed: ``bitrate`` (``192k`` or ``192``), ``vbr`` (0 to 9), ``track``.

        Raises:
            BadOption: an unknown name or a value out of range.
        """
        for name in form:
            if name not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise BadOption(name, f"{name} is no option: use {known}.")
        if form.get("bitrate") and form.get("vbr"):
            raise BadOption("vbr", "Choose bitrate or vbr, not both.")
        return cls(
            bitrate=_bitrate(form["bitrate"]) if form.get("bitrate") else None,
            vbr=_whole("vbr", form["vbr"], 0, 9) if form.get("vbr") else None,
            track=_whole("track", form["track"], 0, 99) if form.get("track") else 0,
        )

    def to_json(self) -> str:
        """The options that were asked for, as a JSON object."""
        return json.dumps(
            {
                name: value
                for name, value in asdict(self).items()
                if value not in (None, 0) or (name == "vbr" and value == 0)
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The options from ``to_json``."""
        return cls(**json.loads(text))


def _bitrate(text: str) -> int:
    digits = text.strip().lower().removesuffix("k")
    if digits.isascii() and digits.isdigit() and int(digits) in BITRATES:
        return int(digits)
    raise BadOption("bitrate", f"bitrate must be one of {', '.join(f'{rate}k' for rate in BITRATES)}.")


def _whole(name: str, text: str, least: int, most: int) -> int:
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and least <= int(digits) <= most:
        return int(digits)
    raise BadOption(name, f"{name} must be a whole number from {least} to {most}.")
