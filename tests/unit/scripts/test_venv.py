"""Tests that scripts/venv, which every script sources, leaves others' environments alone, and builds the page."""

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
    """A checkout with an environment that is older than its lock file, and programs that note how they are called."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/venv", tmp_path / "scripts/venv")
    (tmp_path / "requirements.lock").write_text("new")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shell_program(tmp_path / ".venv/bin/python", "exit 0")
    (tmp_path / ".venv/lock.stamp").write_text("old")
    (tmp_path / "functions/gateway/site").mkdir(parents=True)
    (tmp_path / "functions/gateway/site/page.ts").write_text("first")
    (tmp_path / "calls").touch()
    (tmp_path / "bin").mkdir()
    shell_program(tmp_path / "bin/node", "exit 0")
    shell_program(tmp_path / "bin/npm", f'echo "npm $1" >>{tmp_path}/calls; mkdir -p dist')
    return tmp_path


@pytest.fixture
def current(checkout: Path) -> Path:
    """The same with an environment that is up to date."""
    stamp = subprocess.run(
        ["cksum"], input=(checkout / "requirements.lock").read_bytes(), capture_output=True, check=True
    ).stdout
    (checkout / ".venv/lock.stamp").write_bytes(stamp)
    return checkout


def calls(checkout: Path) -> list[str]:
    """Returns what was called since the last time."""
    called = (checkout / "calls").read_text().splitlines()
    (checkout / "calls").write_text("")
    return called


def source(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", ". scripts/venv; command -v python"]
    env = {"PATH": f"{checkout}/bin:/usr/bin:/bin"}
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
def test_current_environment_of_another_user_is_used(current: Path) -> None:
    source(current)
    os.chown(current / ".venv", SOMEBODY, SOMEBODY)
    done = source(current)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{current}/.venv/bin/python\n", "")


def python(checkout: Path, pip: str) -> None:
    """Makes a Python whose environments have this pip."""
    made = f"""
        case "$*" in
            -c*) exit 0 ;;
            "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo new >"$3/made" ;;
            "-m pip "*) {pip} ;;
        esac
    """
    shell_program(checkout / "bin/python3", made)


@pytest.mark.parametrize("is_link", [False, True], ids=["folder", "link"])
@pytest.mark.parametrize("end", ["exit 1", "kill -9 $PPID"], ids=["fails", "is killed"])
def test_environment_stays_if_the_new_one_cannot_be_made(
    checkout: Path, tmp_path: Path, end: str, is_link: bool
) -> None:
    if is_link:
        (checkout / ".venv").rename(tmp_path / "shared")
        (checkout / ".venv").symlink_to(tmp_path / "shared")
    (checkout / ".venv/mine").touch()
    python(checkout, end)
    assert source(checkout).returncode != 0
    python(checkout, "exit 1")
    done = source(checkout)
    assert (done.returncode, "check the network" in done.stderr) == (1, True)
    assert (checkout / ".venv/mine").exists()
    assert not (checkout / ".venv/.venv").exists()
    assert (checkout / ".venv").is_symlink() == is_link

    python(checkout, "exit 0")
    assert source(checkout).returncode == 0
    assert (checkout / ".venv/made").exists()
    assert not (checkout / ".venv/mine").exists()
    assert not (checkout / ".venv").is_symlink()
    assert not (checkout / ".venv.old").is_symlink()
    assert not (checkout / ".venv.old").exists()
    if is_link:
        assert (tmp_path / "shared/mine").exists()


def test_environment_of_another_python_is_made_again(current: Path) -> None:
    python(current, "exit 0")
    (current / ".venv.old").mkdir()
    source(current)
    assert not (current / ".venv/made").exists()
    assert not (current / ".venv.old").exists()
    shell_program(current / ".venv/bin/python", "echo ModuleNotFoundError >&2; exit 1")
    done = source(current)
    assert (done.returncode, "ModuleNotFoundError" in done.stderr) == (0, False)
    assert (current / ".venv/made").exists()


def test_page_is_built_when_its_sources_have_changed(current: Path) -> None:
    assert source(current).stderr == "Building the page (once, some seconds) ...\n"
    assert calls(current) == ["npm ci", "npm run"]
    assert source(current).stderr == ""
    (current / "functions/gateway/site/page.ts").write_text("second")
    source(current)
    assert calls(current) == ["npm ci", "npm run"]


def test_page_that_cannot_be_built_does_not_end_the_command(current: Path) -> None:
    shell_program(current / "bin/npm", "echo no network >&2; exit 1")
    for _ in range(2):
        done = source(current)
        assert (done.returncode, done.stdout) == (0, f"{current}/.venv/bin/python\n")
        assert done.stderr.splitlines()[1:] == [
            "no network",
            "The page at / could not be built: read the message above; everything else works.",
        ]


def test_page_that_cannot_be_built_again_stays(current: Path) -> None:
    source(current)
    page = current / "functions/gateway/site/dist/index.html"
    page.write_text("built")
    (current / "functions/gateway/site/page.ts").write_text("second")
    shell_program(current / "bin/npm", "echo no network >&2; exit 1")
    done = source(current)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].startswith("The page at / could not be built again and stays as it was")
    assert page.read_text() == "built"


def test_page_is_built_by_a_package_where_node_is_too_old(current: Path) -> None:
    shell_program(current / "bin/node", "exit 1")
    wheel = current / "wheel"
    (wheel / "bin").mkdir(parents=True)
    shell_program(wheel / "bin/node", f'echo "packaged node $*" >>{current}/calls; mkdir -p dist')
    python = (
        f'case $1 in -c) echo {wheel} ;; *) for last; do :; done; echo "pip $* for $last" >>{current}/calls ;; esac'
    )
    shell_program(current / ".venv/bin/python", python)
    assert source(current).returncode == 0
    npm = f"packaged node {wheel}/lib/node_modules/npm/bin/npm-cli.js"
    installed, packages, built = calls(current)
    assert installed.endswith(f" for {current}/functions/gateway/site/node.lock")
    assert packages.startswith(f"{npm} ci --")
    # Without a network neither may keep the command waiting.
    assert "--retries 1 --timeout 15" in installed
    assert "--fetch-retries=1" in packages
    assert "--fetch-timeout=15000" in packages
    assert built == f"{npm} run --silent build"
