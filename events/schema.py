"""What functions say to each other: one frozen dataclass per event.

Events carry ids, never bytes: the database is the record, an event only brings word of it. The id of an event
is made from what it says, so the same event emitted twice, by whomever, has the same id. The attributes are those
of CloudEvents 1.0.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NewType

from events.errors import Mp3burstError

PREFIX = "dev.mp3burst."

#: A job's id: 32 lowercase hexadecimal digits.
JobId = NewType("JobId", str)

_JOB = re.compile("[0-9a-f]{32}")
_MOST = 2**31 - 1  # what an INTEGER of SQL holds


class BadEvent(Mp3burstError):
    """The message is none of our events. Its sentence names every fault that was found."""


@dataclass(frozen=True, slots=True)
class Event:
    """Word of one job. Subclasses set ``type`` and may add fields of JSON's own types."""

    type: ClassVar[str] = ""

    #: The id of the job, 32 hexadecimal digits.
    job: JobId

    @property
    def id(self) -> str:
        """The CloudEvents id: the same for the same event, whoever emits it and however often."""
        return f"{self.job}.{self.type.removeprefix(PREFIX)}"

    def headers(self, source: str) -> dict[str, str]:
        """Return the CloudEvents attributes as headers, the same for HTTP and AMQP in binary mode.

        Args:
            source: the CloudEvents source, ``/mp3burst/FUNCTION``.
        """
        return {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-type": self.type,
            "ce-source": source,
            "ce-subject": self.job,
            "content-type": "application/json",
        }

    def data(self) -> bytes:
        """The event's fields as JSON."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class VideoUploaded(Event):
    """A video is stored and its job is on record."""

    type = PREFIX + "video.uploaded"


@dataclass(frozen=True, slots=True)
class PieceCut(Event):
    """Piece ``n`` (from 0) of the job's audio waits to be encoded."""

    type = PREFIX + "piece.cut"

    n: int

    @property
    def id(self) -> str:
        """The CloudEvents id, with the piece's number."""
        return f"{self.job}.piece.cut.{self.n}"


@dataclass(frozen=True, slots=True)
class PiecesEncoded(Event):
    """Every piece of the job is encoded: the MP3 can be joined."""

    type = PREFIX + "pieces.encoded"


@dataclass(frozen=True, slots=True)
class Mp3Ready(Event):
    """The job's MP3 is stored."""

    type = PREFIX + "mp3.ready"


@dataclass(frozen=True, slots=True)
class ConversionFailed(Event):
    """The job failed for good; its row says why."""

    type = PREFIX + "conversion.failed"


EVENTS: dict[str, type[Event]] = {
    event.type: event for event in (VideoUploaded, PieceCut, PiecesEncoded, Mp3Ready, ConversionFailed)
}


def parse(type_: str, data: object) -> Event:
    """Make an event from its CloudEvents type and its data.

    Args:
        type_: the CloudEvents ``type`` attribute.
        data: the decoded JSON data, or the bytes of it.

    Raises:
        BadEvent: the type is not ours, or the data is not what that type says; every fault is named.
    """
    kind = EVENTS.get(type_)
    if kind is None:
        raise BadEvent(f"{type_!r} is not an event of mp3burst.")
    if isinstance(data, bytes | bytearray | str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadEvent(f"The data of {type_} is not JSON.") from error
    if not isinstance(data, Mapping):
        raise BadEvent(f"The data of {type_} is not a JSON object.")
    faults = _faults(kind, data)
    if faults:
        raise BadEvent(f"The data of {type_} is wrong: {'; '.join(faults)}.")
    return kind(**{field.name: data[field.name] for field in fields(kind)})


def _faults(kind: type[Event], data: Mapping[str, Any]) -> list[str]:
    # Fields that we do not know are let through: a newer emitter may say more.
    faults = []
    for field in fields(kind):
        value = data.get(field.name)
        if field.name not in data:
            faults.append(f"{field.name} is missing")
        elif type(value) is not (kind_of_value := getattr(field.type, "__supertype__", field.type)):
            faults.append(f"{field.name} must be {getattr(kind_of_value, '__name__', kind_of_value)}")
        elif field.name == "job" and not _JOB.fullmatch(str(value)):
            faults.append("job is no id")
        elif isinstance(value, int) and not 0 <= value <= _MOST:
            faults.append(f"{field.name} is out of range")
    return faults
