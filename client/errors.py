"""The errors of the command line: what it prints, and the status with which it exits."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from events.errors import Mp3burstError, TryAgain

#: What pip installs for commands that decode sound on this machine; PyPI has no such package.
CONVERTER: Final = "mp3burst[client,convert] @ git+https://github.com/mp3burst/mp3burst"


class ClientError(Mp3burstError):
    """The command failed; the message says why and what to do."""

    #: The status with which the command exits.
    exit_status: ClassVar[int] = 1


class NotLoggedIn(ClientError):
    """There is no API key for the server, or the server refuses it."""

    exit_status = 3


class Unreachable(TryAgain):
    """The server cannot be reached, or the connection to it was lost."""

    exit_status: ClassVar[int] = 4


class ServerBusy(TryAgain):
    """The server cannot do it now.

    Attributes:
        seconds: how long it asks to wait.
        is_limit: whether a limit of use is reached, which ends when other work does.
    """

    exit_status: ClassVar[int] = 4

    def __init__(self, message: str, seconds: float, is_limit: bool) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.is_limit = is_limit


class RequestRefused(ClientError):
    """The server refuses the request; the message is the server's own.

    Attributes:
        code: the status of its response.
        headers: those of its response.
    """

    def __init__(self, message: str, code: int, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


class Stopped(TryAgain):
    """The command has stopped its uploads, because something else failed."""


class FileChanged(ClientError):
    """A file was changed while it was read."""


class DirectoryUnreadable(ClientError):
    """The directory that is watched, or that of the MP3s, cannot be used; it may come back."""


class RecordsUnusable(ClientError):
    """The list of uploads cannot be read or written."""


class TargetExists(ClientError):
    """Another file has the name of an MP3."""

    def __init__(self, target: Path) -> None:
        super().__init__(f"{target} exists: name another directory with -o, or replace it with --overwrite.")


def not_mp3burst(url: str) -> ClientError:
    """Returns the error of an answer that mp3burst does not give."""
    return ClientError(f"{url} does not answer as mp3burst does: check the address.")
