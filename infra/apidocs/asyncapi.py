"""Makes the AsyncAPI 3 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0) of the events."""

from typing import Any, Final

from events.schema import EVENTS, PREFIX, SHARDS, Event
from infra.apidocs.openapi import version

_ABOUT: Final = (
    "The events that the functions of mp3burst exchange: CloudEvents 1.0 in binary mode. They carry ids, never bytes. "
    "Each is delivered at least once; an event that is repeated has the same `id`."
)


def schema_path(event: type[Event]) -> str:
    """Returns the path at which the JSON Schema of the event's data is served."""
    return f"/schemas/{event.type.removeprefix(PREFIX)}.json"


def document() -> dict[str, Any]:
    """Returns the AsyncAPI document, ready for JSON. The address of a channel is the CloudEvents type."""
    messages = {event.__name__: _message(event) for event in EVENTS.values()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "mp3burst",
            "version": version(),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(event) for name, event in zip(messages, EVENTS.values(), strict=True)},
        "operations": {
            f"{action}{name}": _operation(action, name) for name in messages for action in ("send", "receive")
        },
        "components": {
            "messages": messages,
            "schemas": {event.__name__: event.json_schema() for event in EVENTS.values()},
        },
    }


def _channel(event: type[Event]) -> dict[str, Any]:
    name = event.__name__
    return {"address": event.type, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}


def _operation(action: str, name: str) -> dict[str, Any]:
    channel = f"#/channels/{name}"
    return {
        "action": action,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"}],
    }


def _message(event: type[Event]) -> dict[str, Any]:
    attributes = {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "description": "The same for equal events, whichever function emits them."},
        "ce-type": {"const": event.type},
        "ce-source": {"type": "string", "pattern": "^/mp3burst/[a-z]+$", "description": "The function that emits it."},
        "ce-subject": {"type": "string", "description": "The id of the job or the user."},
        "ce-dataschema": {"const": event.schema_id()},
        "ce-shard": {"enum": [str(n) for n in range(SHARDS)], "description": "A quarter of all events has each."},
    }
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": event.json_schema()["description"],
        "contentType": "application/json",
        "headers": {"type": "object", "properties": attributes, "required": list(attributes)},
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
    }
