"""Real servers for tests: each runs on loopback, on free ports, with its own data, and ends with its test."""

import os
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def program(*names: str) -> str:
    """Returns the path of the first of these programs that is installed.

    If none is, the test is skipped, or fails with ``CI=true``: a gate must not pass because tests were left out.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
    for name in names:
        if found := (shutil.which(name, path=path) or (name if Path(name).is_file() else None)):
            return found
    return missing(f"{' or '.join(names)} is not installed")


def missing(message: str) -> NoReturn:
    """Skips the test, which lacks something, or lets it fail with ``CI=true``."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    """Returns a TCP port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
