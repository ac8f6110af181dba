"""Hooks of schemathesis: half of its requests name things that exist, so that they get past the 404.

``MP3BURST_OWN`` is a JSON object: ``job``, ``fid`` and ``upload`` are the ids of the user, ``wav`` a sound whose bytes
are all ASCII: a body with bytes counts as one that does not match its schema.
"""

import json
import os
import random
from typing import Any, Final

import schemathesis

_OWN: Final[dict[str, str]] = json.loads(os.environ["MP3BURST_OWN"])
_CHANCE: Final = random.Random(1)  # noqa: S311 - which requests are changed is no secret


@schemathesis.serializer("application/offset+octet-stream", "audio/wav", "video/mp4")
def as_bytes(_: Any, value: object) -> bytes:
    """Returns whatever was generated as the bytes of a file."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Replaces ids, and the file of a form, in every other request."""
    if _CHANCE.random() < 0.5 or case.meta.generation.mode.is_negative:
        return
    for name in case.path_parameters or {}:
        if name in _OWN and case.method != "DELETE":
            case.path_parameters[name] = _OWN[name]
    if isinstance(case.query, dict) and "fid" in case.query:
        case.query["fid"] = _OWN["fid"]
    if isinstance(case.body, dict) and "file" in case.body:
        case.body["file"] = _OWN["wav"]
