"""The root of every error that mp3burst raises itself, and the errors that every part of it shares."""

from typing import ClassVar


class Mp3burstError(Exception):
    """An error with a message for the user.

    ``str(error)`` is that message: plain, complete, says what to do, and safe to show to a user.
    What only an operator may read belongs in ``__cause__`` and in the log.
    """

    #: The HTTP status that an HTTP function answers with if nothing else handles the error.
    status: ClassVar[int] = 500
    #: Whether work that ends with the error has used up one of its attempts. False if the error says nothing about the
    #: work, because a service was unavailable that all work needs.
    counts_as_attempt: ClassVar[bool] = True


class TryAgain(Mp3burstError):
    """A service that the function depends on is unavailable; the same call may succeed later."""

    status = 503


class PermanentFailure(Mp3burstError):
    """The work can never succeed, however often it is tried; the message is for the user who asked for it."""


class NotPublished(TryAgain):
    """The broker did not confirm the event in time. The row it announces stays due, so sweep emits it again."""

    def __init__(self) -> None:
        """Uses the one message there is for it; the reason belongs in ``__cause__``."""
        super().__init__("The event broker did not accept the event; it will be sent again later.")


def with_cause(error: BaseException) -> str:
    """Returns the error's message for the log, followed by its cause in parentheses, if it has one."""
    cause = error.__cause__
    return str(error) if cause is None else f"{error} ({str(cause) or type(cause).__name__})"
