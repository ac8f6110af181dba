"""Responses that are sent bit by bit, by whoever has something to say, so that no thread waits for it.

A handler returns ``pushed(...)``. The server sends the head and the first bytes like any other response. Then
``infra.worker`` keeps the connection in its event loop, and gives the ``Push`` a ``Sink`` for the rest. Any other WSGI
server ends the response after its first bytes.
"""

from typing import Final, Protocol

from flask import Request, Response

#: The key of a request's environ that has the Push of its response.
PUSH: Final = "mp3burst.push"


class Sink(Protocol):
    """Sends what a push has; may be called on any thread, does not wait, and does nothing after the response's end."""

    def wake(self) -> None:
        """Takes and sends what there is to send, as far as the client takes it now; the rest follows by itself."""

    def end(self) -> None:
        """Ends the response as if its time were over."""


class Push(Protocol):
    """The rest of a response.

    Attributes:
        seconds: after which the response ends.
        beat: bytes that are sent in between, so that everybody on the way knows that the connection is alive.
        beat_seconds: how often.
    """

    seconds: float
    beat: bytes
    beat_seconds: float

    def begin(self, sink: Sink) -> None:
        """Begins to push to the sink; must not wait."""

    def take(self) -> bytes:
        """Returns the next bytes to send, none if there are none; must not wait.

        Is called when the client has taken the bytes before, so a client that is slow costs the memory of one piece.
        """

    def last(self) -> bytes:
        """Returns the last bytes, which are sent when the time is over; none of those that were not taken."""

    def ended(self) -> None:
        """Is called once when the response has ended, however it did, even if it has not begun."""


def pushed(request: Request, first: bytes, push: Push, content_type: str) -> Response:
    """Returns a response that begins with ``first``, which must not be empty."""
    request.environ[PUSH] = push
    return Response(iter((first,)), content_type=content_type)
