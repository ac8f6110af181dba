"""The security log: one line for each login, registration, refusal and deletion, by the logger ``mp3burst.security``.

    time=2026-11-26T16:10:00.123Z event=login.failed function=login user=1f0c... address=9a3b...

``docs/security.md`` lists the events. Users and addresses are HMACs with LOG_KEY: lines about the same user have the
same value, and without the key the log does not reveal which user that is. A typed username may be a password.
"""

import functools
import hashlib
import hmac
import logging
import os
import re
import secrets
from datetime import UTC, datetime
from typing import Final

from functions.networks import networks

#: Hexadecimal digits of a pseudonym: enough to tell users apart.
_PSEUDONYM: Final = 16
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,:+-]")
log = logging.getLogger("mp3burst.security")


def record(event: str, *, user: str | None = None, address: str | None = None, **details: object) -> None:
    """Writes one line: information about a success or a deletion, a warning about anything else.

    Args:
        event: what happened, such as ``login.failed``.
        user: the username in stored form, if there is one.
        address: the client's; all addresses of an IPv6 network of 64 bits are the same.
        details: what else an investigation needs. No secret and no name.
    """
    fields: dict[str, object] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event,
        "function": os.environ.get("FUNCTION_TARGET") or "-",
        "user": pseudonym("user", user) if user else "-",
        "address": pseudonym("address", networks(address)[0]) if address else "-",
        **details,
    }
    line = " ".join(f"{name}={_UNSAFE.sub('?', str(value))}" for name, value in fields.items())
    log.log(logging.INFO if event.endswith((".succeeded", ".deleted")) else logging.WARNING, "%s", line)


def pseudonym(kind: str, text: str) -> str:
    """Returns the keyed hash that stands for a user or a network in the log."""
    key = _key(os.environ.get("LOG_KEY", ""))
    return hmac.new(key, f"{kind}:{text}".encode(errors="replace"), hashlib.sha256).hexdigest()[:_PSEUDONYM]


@functools.lru_cache(maxsize=1)
def _key(text: str) -> bytes:
    if text:
        return text.encode()
    log.warning("LOG_KEY is not set: users and addresses in the security log have other hashes in every process.")
    return secrets.token_bytes(32)
