"""Tests ./scripts/sbom: a bill for each image, of what infra/Dockerfile installs in it."""

import json
from pathlib import Path

import pytest
import yaml

from infra import extra_requirements
from scripts import sbom
from tests.support.paths import ROOT
from tests.support.processes import shell_program


def test_every_image_has_a_bill() -> None:
    services = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"].values()
    ours = {service["image"] for service in services if service["image"].startswith("mp3burst/")}
    ours.remove("mp3burst/gateway:latest")  # nginx, without Python
    assert {f"mp3burst/{name}:latest" for name in sbom.image_names()} == ours


def test_a_bill_lists_what_the_image_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip, which resolves what the packages require, is replaced: here they require nothing."""
    asked: list[set[str]] = []

    def closure(requirements: list[str], _: list[str]) -> set[str]:
        names = {extra_requirements.normal(each.partition(">")[0].partition("[")[0]) for each in requirements}
        asked.append(names)
        return names

    monkeypatch.setattr(extra_requirements, "closure", closure)
    project, lock = extra_requirements.read()
    text = sbom.requirements("validate", project, lock)
    assert asked == [{"functions-framework", "cloudevents", "pyjwt", "msgspec", "sqlalchemy", "psycopg", "pymysql"}]
    assert "--hash=sha256:" in text
    assert text.count("\npyjwt==") == 1
    assert "functions-framework" not in sbom.requirements("bridge", project, lock)


def test_the_tool_gets_the_packages_on_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell_program(tmp_path / "cyclonedx-py", 'printf "%s\\n" "$@" >"$6.options"; cat >"$6"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    file = tmp_path / "login.cdx.json"
    sbom.write("login", "pyjwt==2\n", file)
    assert file.read_text() == "pyjwt==2\n"
    assert "--output-reproducible" in Path(f"{file}.options").read_text()
    shell_program(tmp_path / "cyclonedx-py", "echo broken >&2; exit 2")
    with pytest.raises(sbom.CannotWrite, match="bill of login could not be written:\nbroken"):
        sbom.write("login", json.dumps({}), file)
