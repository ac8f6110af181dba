"""The events that functions exchange: one frozen dataclass per type.

Events carry ids, never bytes: the database is the record, and an event only announces a change of it. An event's id is
derived from its content, so an event that is emitted twice, by whichever function, has the same id both times. The
attributes are those of CloudEvents 1.0.
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import Any, ClassVar, NewType

from events.errors import Mp3burstError

PREFIX = "dev.mp3burst."

#: A job's id: 32 lowercase hexadecimal digits.
JobId = NewType("JobId", str)

_ID = re.compile("[0-9a-f]{32}")
#: The fields of events that have such an id.
_ID_FIELDS = ("job", "user", "delivery")
#: The values of the extension attribute ``shard``, 0 to 3. A Trigger has at most 100 events in delivery at once; four
#: Triggers of one function, each with the events of one shard, have 400.
SHARDS = 4
_MAX_INTEGER = 2**31 - 1  # the maximum of an INTEGER column
#: Of the data of every event. A change that its consumers cannot read needs another one.
_SCHEMA_VERSION = 1


class BadEvent(Mp3burstError):
    """The message is not a valid event of mp3burst. The error's message names every fault that was found."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event about one job, user or delivery. Subclasses set ``type`` and have fields of JSON types."""

    type: ClassVar[str] = ""

    @property
    def subject(self) -> str:
        """The CloudEvents subject: the id of the job or the user."""
        raise NotImplementedError

    @property
    def about(self) -> str:
        """What the event is about, as log lines name it: ``job 0123...`` or ``user 0123...``."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """The CloudEvents id: the same for equal events, whichever function emits them."""
        return f"{self.subject}.{self.type.removeprefix(PREFIX)}"

    @property
    def shard(self) -> int:
        """By which several Triggers may share the events of a type: an extension attribute, from 0."""
        return zlib.crc32(self.id.encode()) % SHARDS

    @classmethod
    def schema_id(cls) -> str:
        """Returns the CloudEvents dataschema, which is the ``$id`` of ``json_schema``."""
        return f"urn:mp3burst:event:{cls.type.removeprefix(PREFIX)}:{_SCHEMA_VERSION}"

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Returns the JSON Schema of the data: what ``parse`` accepts."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": cls.schema_id(),
            "title": cls.__name__,
            "description": (cls.__doc__ or "").replace("``", "").strip(),
            "type": "object",
            "properties": {field.name: _field_schema(field) for field in fields(cls)},
            "required": [field.name for field in fields(cls)],
        }

    def headers(self, source: str) -> dict[str, str]:
        """Returns the CloudEvents attributes as headers, the same for HTTP and AMQP in binary mode.

        Args:
            source: the CloudEvents source, ``/mp3burst/FUNCTION``.
        """
        return {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-type": self.type,
            "ce-source": source,
            "ce-subject": self.subject,
            "ce-dataschema": self.schema_id(),
            "ce-shard": str(self.shard),
            "content-type": "application/json",
        }

    def data(self) -> bytes:
        """Returns the event's fields as JSON."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    """An event about one job."""

    #: The id of the job, 32 hexadecimal digits.
    job: JobId

    @property
    def subject(self) -> str:
        """The CloudEvents subject: the id of the job."""
        return self.job

    @property
    def about(self) -> str:
        """The job, as log lines name it."""
        return f"job {self.job}"


@dataclass(frozen=True, slots=True)
class VideoUploaded(JobEvent):
    """A video is stored and its job was created."""

    type = PREFIX + "video.uploaded"


@dataclass(frozen=True, slots=True)
class FetchDue(JobEvent):
    """The job's video waits to be fetched from its address."""

    type = PREFIX + "fetch.due"


@dataclass(frozen=True, slots=True)
class PieceCut(JobEvent):
    """Piece ``n`` (from 0) of the job's audio waits to be encoded."""

    type = PREFIX + "piece.cut"

    n: int

    @property
    def id(self) -> str:
        """The CloudEvents id, with the piece's number."""
        return f"{self.job}.piece.cut.{self.n}"


@dataclass(frozen=True, slots=True)
class PiecesEncoded(JobEvent):
    """Every piece of the job is encoded: the MP3 can be joined."""

    type = PREFIX + "pieces.encoded"


@dataclass(frozen=True, slots=True)
class Mp3Ready(JobEvent):
    """The job's MP3 is stored."""

    type = PREFIX + "mp3.ready"


@dataclass(frozen=True, slots=True)
class ConversionFailed(JobEvent):
    """The job failed permanently; its row has the error."""

    type = PREFIX + "conversion.failed"


@dataclass(frozen=True, slots=True)
class AddressUnconfirmed(Event):
    """The user's address waits to be confirmed; mail ``n`` (from 0) asks for it."""

    type = PREFIX + "address.unconfirmed"

    #: The id of the user, 32 hexadecimal digits.
    user: str
    n: int

    @property
    def subject(self) -> str:
        """The CloudEvents subject: the id of the user."""
        return self.user

    @property
    def about(self) -> str:
        """The user, as log lines name them."""
        return f"user {self.user}"

    @property
    def id(self) -> str:
        """The CloudEvents id, with the mail's number."""
        return f"{self.user}.address.unconfirmed.{self.n}"


@dataclass(frozen=True, slots=True)
class PasswordForgotten(Event):
    """Somebody asked to reset the password of this user, who may not exist; ``n`` is a random number."""

    type = PREFIX + "password.forgotten"

    #: The id of the user, 32 hexadecimal digits.
    user: str
    n: int

    @property
    def subject(self) -> str:
        """The CloudEvents subject: the id of the user."""
        return self.user

    @property
    def about(self) -> str:
        """The user, as log lines name them."""
        return f"user {self.user}"

    @property
    def id(self) -> str:
        """The CloudEvents id, with the number."""
        return f"{self.user}.password.forgotten.{self.n}"


@dataclass(frozen=True, slots=True)
class DeliveryDue(Event):
    """A delivery to a webhook waits to be made."""

    type = PREFIX + "delivery.due"

    #: The id of the delivery, 32 hexadecimal digits.
    delivery: str

    @property
    def subject(self) -> str:
        """The CloudEvents subject: the id of the delivery."""
        return self.delivery

    @property
    def about(self) -> str:
        """The delivery, as log lines name it."""
        return f"delivery {self.delivery}"


EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        VideoUploaded,
        FetchDue,
        PieceCut,
        PiecesEncoded,
        Mp3Ready,
        ConversionFailed,
        AddressUnconfirmed,
        PasswordForgotten,
        DeliveryDue,
    )
}


def parse(type_: str, data: object) -> Event:
    """Makes an event from its CloudEvents type and its data.

    Args:
        type_: the CloudEvents ``type`` attribute.
        data: the JSON data, decoded or as bytes.

    Raises:
        BadEvent: the type is unknown, or the data does not fit it; the message names every fault.
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


def _field_schema(field: Field[Any]) -> dict[str, Any]:
    if field.name in _ID_FIELDS:
        return {"type": "string", "pattern": f"^{_ID.pattern}$"}
    return {"type": "integer", "minimum": 0, "maximum": _MAX_INTEGER}


def _faults(kind: type[Event], data: Mapping[str, Any]) -> list[str]:
    # Unknown fields are ignored: a newer emitter may add some.
    faults = []
    for field in fields(kind):
        value = data.get(field.name)
        expected: Any = getattr(field.type, "__supertype__", field.type)  # str for JobId
        if field.name not in data:
            faults.append(f"{field.name} is missing")
        elif type(value) is not expected:
            faults.append(f"{field.name} must be {expected.__name__}")
        elif field.name in _ID_FIELDS and not _ID.fullmatch(str(value)):
            faults.append(f"{field.name} is not a valid id")
        elif isinstance(value, int) and not 0 <= value <= _MAX_INTEGER:
            faults.append(f"{field.name} is out of range")
    return faults
