"""Real servers for tests: each starts on loopback, on free ports, with its own data, and ends with its test."""

import os
import shutil
import socket
from pathlib import Path

import pytest

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def program(*names: str) -> str:
    """The path of the first program of these names that is there.

    Where there is none the test skips, or fails with ``CI=true``: a gate must not pass by leaving things out.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
    for name in names:
        if found := (shutil.which(name, path=path) or (name if Path(name).is_file() else None)):
            return found
    sentence = f"{' or '.join(names)} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
