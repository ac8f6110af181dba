"""Asks receivers whether they want events: the OPTIONS handshake of CloudEvents webhooks.

https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md, section 4.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from events.errors import Mp3burstError
from functions.outgoing.addresses import Policy
from functions.outgoing.client import NoReply, call
from functions.settings import BadSetting, required

_NUMBER: Final = re.compile("[0-9]{1,9}")
#: Calls a minute from which on a limit makes no difference.
_MAX_RATE: Final = 1_000_000


class HandshakeRefused(Mp3burstError):
    """The receiver does not allow events from here."""

    status = 422

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"The webhook's receiver does not allow events from {origin}: have it answer OPTIONS with the header "
            f"WebHook-Allowed-Origin: {origin}."
        )


@dataclass(frozen=True, slots=True)
class Handshake:
    """Asks receivers.

    Attributes:
        policy: the addresses that are allowed.
        origin: the name that this installation has for them.
        is_required: whether receivers that do not answer are refused, and not only those that allow other origins.
    """

    policy: Policy
    origin: str
    is_required: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Reads ``WEBHOOK_HANDSHAKE``, ``PUBLIC_URL``, and what ``Policy.from_environ`` does.

        Raises:
            BadSetting: one of them is invalid.
        """
        handshake = environ.get("WEBHOOK_HANDSHAKE") or "optional"
        if handshake not in ("optional", "required"):
            raise BadSetting("WEBHOOK_HANDSHAKE must be optional or required.")
        url = required(environ, "PUBLIC_URL", "the URL where users reach the system")
        return cls(Policy.from_environ(environ), urlsplit(url).hostname or url, handshake == "required")

    def ask(self, url: str) -> int | None:
        """Returns how many events a minute may be sent to the address; None if the receiver does not limit them.

        Raises:
            AddressRefused, HostUnknown: the address is not allowed, or its host is not known.
            HandshakeRefused: the receiver does not want them.
        """
        target = self.policy.parse(url)
        try:
            reply = call("OPTIONS", target, self.policy, {"WebHook-Request-Origin": self.origin}, seconds=5)
            allowed = reply.headers.get("WebHook-Allowed-Origin")
            rate = reply.headers.get("WebHook-Allowed-Rate", "").strip()
        except NoReply:
            allowed = None
        if allowed is None and not self.is_required:
            return None
        if allowed is None or allowed.strip().lower() not in ("*", self.origin.lower()):
            raise HandshakeRefused(self.origin)
        return min(int(rate), _MAX_RATE) or None if _NUMBER.fullmatch(rate) else None
