"""Calls webhooks: one request to an address that was resolved once, with a limit for everything the other side does."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from events.errors import Mp3burstError
from functions.outgoing.addresses import Policy, Target

#: Seconds for a complete exchange, after the host was resolved.
SECONDS: Final = 15.0
#: Addresses of a host that are tried.
_MAX_ADDRESSES: Final = 3
_USER_AGENT: Final = "mp3burst"


class NoReply(Mp3burstError):
    """The receiver cannot be reached, or has not answered in time or not by HTTP. The message is for the owner."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of a response; the body is not read.

    Attributes:
        status: its status.
        headers: its header fields.
    """

    status: int
    headers: http.client.HTTPMessage


def call(
    method: str,
    target: Target,
    policy: Policy,
    headers: Mapping[str, str],
    body: bytes | None = None,
    seconds: float = SECONDS,
) -> Reply:
    """Sends a request and returns the head of the response. Redirects are not followed.

    Args:
        method: the HTTP method.
        target: whom to call.
        policy: which of its host's addresses are allowed.
        headers: header fields; Host, User-Agent and Connection are added.
        body: of the request.
        seconds: for all of it.

    Raises:
        AddressRefused: an address of the host is not allowed.
        HostUnknown: the host has none.
        NoReply: there was no response.
    """
    addresses = policy.resolve(target)
    deadline = time.monotonic() + seconds
    try:
        with _connected(target, addresses[:_MAX_ADDRESSES], deadline) as connected:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = connected
            fields = {"Host": target.authority, "User-Agent": _USER_AGENT, "Connection": "close", **headers}
            connection.request(method, target.path, body, fields)
            response = connection.getresponse()
            if time.monotonic() >= deadline:  # it was cut off within its head
                raise TimeoutError
            return Reply(response.status, response.headers)
    except ssl.SSLCertVerificationError as error:
        raise NoReply(f"The receiver's certificate is not valid: {error.verify_message}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise NoReply(f"The receiver did not answer within {seconds:g} seconds.") from error
        raise NoReply(f"The receiver could not be reached ({type(error).__name__}).") from error


@contextlib.contextmanager
def _connected(target: Target, addresses: list[str], deadline: float) -> Iterator[socket.socket]:
    """Yields a connection to the first address that takes one, which is shut down at the deadline."""
    plain = _connect(addresses, target.port, deadline)
    with contextlib.ExitStack() as stack:
        stack.callback(plain.close)
        connected = plain
        if target.is_secure:
            connected = ssl.create_default_context().wrap_socket(
                plain, server_hostname=target.host, do_handshake_on_connect=False
            )
            stack.callback(connected.close)
        # A timeout of the socket starts anew with every byte that arrives.
        seconds = max(deadline - time.monotonic(), 0)
        timer = threading.Timer(seconds, _shut_down, (connected,))
        timer.daemon = True
        timer.start()
        stack.callback(timer.cancel)
        if isinstance(connected, ssl.SSLSocket):
            connected.do_handshake()
        yield connected


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        seconds = (deadline - time.monotonic()) / left
        try:
            connected = socket.create_connection((address, port), timeout=max(seconds, 0.001))
        except OSError:
            if left == 1:
                raise
            continue
        connected.settimeout(None)
        return connected
    raise OSError("there is no address")


def _shut_down(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not the method of SSLSocket, which another thread may be using.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
