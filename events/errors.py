"""The root of every error that mp3burst raises itself."""

from typing import ClassVar


class Mp3burstError(Exception):
    """Something went wrong that mp3burst has a sentence for.

    ``str(error)`` is that sentence: plain, complete, says what to do, and is safe to show to a user.
    What only an operator may read belongs in the ``__cause__`` and in the log.
    """

    #: The HTTP status that an HTTP function answers with when the error reaches its edge.
    status: ClassVar[int] = 500


class TryAgain(Mp3burstError):
    """A service that the function stands on is away for now; the same call may succeed later."""

    status = 503


def with_cause(error: BaseException) -> str:
    """The error's sentence for the log, with what caused it in parentheses, if anything did."""
    cause = error.__cause__
    return str(error) if cause is None else f"{error} ({str(cause) or type(cause).__name__})"
