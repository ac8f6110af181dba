"""infra/extra_requirements.py: an image installs all of an extra's dependencies, from the lock file with hashes."""

import re

import pytest

from infra import extra_requirements
from infra.extra_requirements import NotLocked, direct, entries, locked, without_hashes
from tests.support.packages import PROJECT, installed_closure
from tests.support.paths import ROOT

LOCK = entries((ROOT / "requirements.lock").read_text())


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_lock_file_contains_every_dependency_of_an_extra(extra: str) -> None:
    names = installed_closure([*direct(PROJECT, extra), *direct(PROJECT, "")])

    for entry in locked(names, LOCK):
        assert re.match(r"[a-z0-9-]+==\S+( ; .+?)? \\\n +--hash=sha256:[0-9a-f]{64}", entry), entry


def test_nested_extras_are_resolved() -> None:
    project = {
        "name": "own",
        "dependencies": ["base"],
        "optional-dependencies": {
            "sql": ["alchemy>=2", "driver[binary]>=3"],
            "web": ["own[sql,keys]", "x"],
            "keys": ["k"],
        },
    }
    assert list(direct(project, "web")) == ["alchemy>=2", "driver[binary]>=3", "k", "x"]
    assert list(direct(project, "")) == ["base"]
    with pytest.raises(NotLocked, match="has no extra nothing: choose one of sql, web, keys"):
        list(direct(project, "nothing"))


def test_lock_file_is_parsed_completely() -> None:
    text = (ROOT / "requirements.lock").read_text()

    assert sum(len(versions) for versions in LOCK.values()) == len(re.findall(r"^\S+==", text, re.MULTILINE))
    assert sum(entry.count("--hash=") for versions in LOCK.values() for entry in versions) == text.count("--hash=")
    assert len(LOCK["numpy"]) > 1, "this test needs the one package that has a version for each Python"


def test_constraints_have_no_hashes() -> None:
    assert without_hashes(
        "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:1 \\\n    --hash=sha256:2"
    ) == ("numpy==2.4.6 ; python_full_version < '3.12'")


def test_package_missing_from_lock_file_is_named() -> None:
    with pytest.raises(NotLocked, match=r"^requirements\.lock has no nowhere:"):
        locked({"flask", "nowhere"}, LOCK)


def test_unknown_extra_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["extra_requirements.py", "nothing"])

    assert extra_requirements.main() == 1
    assert capsys.readouterr().err.startswith("pyproject.toml has no extra nothing: choose one of sql, media,")
