"""Calls addresses of users: one request to an address that was resolved once, with a limit for all the other side does.

``call`` reads the head of a response and no more, as webhooks need it; ``opened`` also yields the body, bit by bit.
"""

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from events.errors import Mp3burstError
from functions.outgoing.addresses import Policy, Target

#: Seconds for a complete exchange, after the host was resolved.
SECONDS: Final = 15.0
#: Seconds within which the head of a response that is read bit by bit must be there, once the host was resolved.
HEAD_SECONDS: Final = 60.0
#: Addresses of a host that are tried.
_MAX_ADDRESSES: Final = 3
_USER_AGENT: Final = "mp3burst"


class NoReply(Mp3burstError):
    """The other side cannot be reached, or has not answered in time or not by HTTP. The message is for the user."""


class TimedOut(NoReply):
    """The other side has not answered in time."""


class TlsFailure(NoReply):
    """There is no secure connection: the certificate is not valid, or the other side speaks no TLS that is secure."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of a response; the body is not read.

    Attributes:
        status: its status.
        headers: its header fields.
    """

    status: int
    headers: http.client.HTTPMessage


class Response:
    """A response whose body is read bit by bit.

    Attributes:
        status: its status.
        headers: its header fields.
    """

    def __init__(self, response: http.client.HTTPResponse, limits: "Limits") -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._limits = limits

    def read(self, size: int) -> bytes:
        """Returns what has arrived, at most ``size`` bytes; none at the end, or if the connection ended early.

        Raises:
            NoReply: the connection was lost, or nothing has arrived in time.
        """
        with _translated(self._limits, "broke the connection off"):
            data = self._response.read1(size)
            if not data:
                self._limits.check()  # or it was shut down by us
            return data


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
    limits = Limits("receiver", seconds)
    with (
        _translated(limits),
        _connected(target, addresses, limits) as connected,
        _shut_down_at(limits.deadline, connected),
        _begin(connected, limits, method, target, headers, body) as response,
    ):
        limits.check()  # it may have been cut off within its head
        return Reply(response.status, response.headers)


@contextlib.contextmanager
def opened(target: Target, policy: Policy, headers: Mapping[str, str], limits: "Limits") -> Iterator[Response]:
    """Gets a file: yields the response once its head is there. Redirects are not followed.

    Args:
        target: where the file is.
        policy: which of its host's addresses are allowed.
        headers: header fields; Host, User-Agent and Connection are added.
        limits: of this exchange, and perhaps of others before it.

    Raises:
        AddressRefused, HostUnknown, NoReply: as in ``call``.
    """
    with _translated(limits):
        limits.check()
    addresses = policy.resolve(target)
    head = limits.within(limits.head)
    with contextlib.ExitStack() as stack:
        with _translated(head):
            connected = stack.enter_context(_connected(target, addresses, head))
            with _shut_down_at(head.deadline, connected):
                response = stack.enter_context(_begin(connected, head, "GET", target, headers))
            head.check()
        stack.enter_context(_shut_down_at(limits.deadline, connected))
        yield Response(response, limits)


def retry_after(text: str | None) -> float:
    """Returns the seconds that a Retry-After header names (RFC 9110, 10.2.3); 0 if it names none."""
    if text is None:
        return 0
    try:
        if text.strip().isdecimal():
            return float(text.strip()[:9])
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0)
    except (ValueError, TypeError, OverflowError):
        return 0


#: Runs a ``with`` block, and calls the action from another thread if the block is no longer worth its time.
Interrupting = Callable[[Callable[[], None]], AbstractContextManager[object]]


class Limits:
    """The time that an exchange, or several after another, may take from now on."""

    def __init__(
        self,
        whose: str,
        seconds: float,
        idle: float | None = None,
        head: float = HEAD_SECONDS,
        interrupting: Interrupting = contextlib.nullcontext,
    ) -> None:
        """Sets the limits.

        Args:
            whose: what the other side is called in messages.
            seconds: for all of it.
            idle: seconds within which a connection must be made, and within which further bytes must arrive.
            head: seconds of each connection until the head of its response is there.
            interrupting: ends an exchange early.
        """
        self.whose = whose
        self.seconds = seconds
        self.idle = idle
        self.head = head
        self.interrupting = interrupting
        self.deadline = time.monotonic() + seconds

    def within(self, seconds: float) -> "Limits":
        """Returns the limits of a part that may take so many seconds, from now on."""
        part = Limits(self.whose, seconds, self.idle, self.head, self.interrupting)
        return part if part.deadline < self.deadline else self

    def check(self) -> None:
        """Raises TimeoutError if the time is over."""
        if time.monotonic() >= self.deadline:
            raise TimeoutError


@contextlib.contextmanager
def _translated(limits: Limits, failure: str = "could not be reached") -> Iterator[None]:
    """Turns the errors of an exchange into those of this module.

    Args:
        limits: of the exchange.
        failure: what the other side did if none of them was exceeded.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise TlsFailure(f"The {limits.whose}'s certificate is not valid: {error.verify_message}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= limits.deadline:
            raise TimedOut(f"The {limits.whose} did not answer within {limits.seconds:.3g} seconds.") from error
        if isinstance(error, TimeoutError) and limits.idle is not None:
            raise TimedOut(f"The {limits.whose} has sent nothing for {limits.idle:g} seconds.") from error
        raise NoReply(f"The {limits.whose} {failure} ({type(error).__name__}).") from error


def _begin(
    connected: socket.socket,
    limits: Limits,
    method: str,
    target: Target,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> http.client.HTTPResponse:
    """Sends a request, and returns the response once its head is there."""
    if isinstance(connected, ssl.SSLSocket):
        _shake_hands(connected, limits)
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = connected
    fields = {"Host": target.authority, "User-Agent": _USER_AGENT, "Connection": "close", **headers}
    connection.request(method, target.path, body, fields)
    return connection.getresponse()


@contextlib.contextmanager
def _connected(target: Target, addresses: list[str], limits: Limits) -> Iterator[socket.socket]:
    """Yields a connection to the first address that takes one, before the handshake of TLS."""
    plain = _connect(addresses[:_MAX_ADDRESSES], target.port, limits)
    with contextlib.ExitStack() as stack:
        stack.callback(plain.close)
        connected = plain
        if target.is_secure:
            connected = ssl.create_default_context().wrap_socket(
                plain,
                server_hostname=target.host,
                do_handshake_on_connect=False,
                # A body that only the connection's end ends is incomplete if TLS does not end before (RFC 9112, 9.8).
                suppress_ragged_eofs=False,
            )
            stack.callback(connected.close)
        stack.enter_context(limits.interrupting(functools.partial(_shut_down, connected)))
        yield connected


@contextlib.contextmanager
def _shut_down_at(deadline: float, connected: socket.socket) -> Iterator[None]:
    """Shuts a connection down if the ``with`` block lasts until then.

    A timeout of the socket starts anew with every byte that arrives.
    """
    timer = threading.Timer(max(deadline - time.monotonic(), 0), _shut_down, (connected,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shake_hands(connected: ssl.SSLSocket, limits: Limits) -> None:
    try:
        connected.do_handshake()
    except (ssl.SSLCertVerificationError, ssl.SSLEOFError, ssl.SSLSyscallError):
        raise
    except ssl.SSLError as error:
        reason = (error.reason or "unknown").lower().replace("_", " ")
        raise TlsFailure(f"There is no secure connection to the {limits.whose} ({reason}).") from error


def _connect(addresses: list[str], port: int, limits: Limits) -> socket.socket:
    until = limits.deadline if limits.idle is None else min(limits.deadline, time.monotonic() + limits.idle)
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        seconds = (until - time.monotonic()) / left
        try:
            connected = socket.create_connection((address, port), timeout=max(seconds, 0.001))
        except OSError:
            if left == 1:
                raise
            continue
        connected.settimeout(limits.idle)
        return connected
    raise OSError("there is no address")


def _shut_down(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not the method of SSLSocket, which another thread may be using.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
