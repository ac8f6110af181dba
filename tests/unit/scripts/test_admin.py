"""``scripts/admin`` and ``scripts/key`` with a database that cannot be reached."""

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("arguments", [("admin", "ann@example.org"), ("key", "ann@example.org", "read")])
def test_message_has_the_cause(arguments: tuple[str, ...]) -> None:
    """An operator has to know whether the address, the password or the network is wrong."""
    script, *rest = arguments
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/d",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *rest], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "refused" in done.stderr
    assert "secret" not in done.stderr
