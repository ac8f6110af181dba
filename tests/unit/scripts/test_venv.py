"""Tests that scripts/venv, which every script sources, leaves the environment of another user alone."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.processes import shell_program

#: A user that does not exist.
SOMEBODY = 23456


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with an environment that is older than its lock file."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/venv", tmp_path / "scripts/venv")
    (tmp_path / "requirements.lock").write_text("new")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shell_program(tmp_path / ".venv/bin/python", "exit 0")
    (tmp_path / ".venv/lock.stamp").write_text("old")
    return tmp_path


def source(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", ". scripts/venv; command -v python"]
    env = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_outdated_environment_of_another_user_is_left_alone(checkout: Path) -> None:
    os.chown(checkout / ".venv", SOMEBODY, SOMEBODY)
    done = source(checkout)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{checkout}/.venv belongs to ")
    assert "in a checkout of your own" in line
    assert (checkout / ".venv/bin/python").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_current_environment_of_another_user_is_used(checkout: Path) -> None:
    os.chown(checkout / ".venv", SOMEBODY, SOMEBODY)
    stamp = subprocess.run(
        ["cksum"], input=(checkout / "requirements.lock").read_bytes(), capture_output=True, check=True
    ).stdout
    (checkout / ".venv/lock.stamp").write_bytes(stamp)
    done = source(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{checkout}/.venv/bin/python\n", "")
