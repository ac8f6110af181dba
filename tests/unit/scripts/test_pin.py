"""Tests ./scripts/pin: every image of another project gets the digest that the registry has for its tag."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from scripts import pin
from tests.support.paths import ROOT
from tests.support.processes import shell_program


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files that name images, and a registry in which an image's digest follows from its name."""
    for path in pin.files(ROOT):
        target = tmp_path / "copy" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "bin").mkdir()
    shell_program(tmp_path / "bin/crane", 'echo "sha256:$(printf %s "$2" | sha256sum | cut -c1-64)"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path / "copy"


def run(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pin", *arguments])
    return pin.main(root)


def named_images() -> set[str]:
    """Returns the images of other projects that the YAML files name, found without a regular expression."""
    found = set()
    for path in [ROOT / "infra/compose.yaml", *(ROOT / "infra").glob("*/*.yaml")]:
        for document in yaml.safe_load_all(path.read_text()):
            waiting = [document]
            while waiting:
                each = waiting.pop()
                if isinstance(each, dict):
                    found |= {each["image"]} if isinstance(each.get("image"), str) else set()
                    waiting += each.values()
                elif isinstance(each, list):
                    waiting += each
    return {image for image in found if not image.startswith("mp3burst/")}


def test_every_image_is_found() -> None:
    found = {image for path in pin.files(ROOT) for image, _ in pin.images(path.read_text())}
    assert found == {image.partition("@")[0] for image in named_images()} | {
        image for image in found if image.startswith(("python:", "nginxinc/", "node:"))
    }
    assert len(found) == 8, "an image has the same version everywhere"
    for folder, count in (("infra", 1), ("functions/gateway", 3)):
        assert len(pin.images((ROOT / folder / "Dockerfile").read_text())) == count


def test_actions_of_workflows_are_pinned() -> None:
    texts = [path.read_text() for path in (ROOT / ".github/workflows").iterdir()]
    used = [line.strip() for text in texts for line in text.splitlines() if "uses:" in line]
    assert used
    assert [line for line in used if not re.fullmatch(r"- uses: [\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_images_are_pinned_once_and_for_all(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, copy, "--check") == 1
    assert "mongo:" in capsys.readouterr().out
    assert run(monkeypatch, copy) == 0
    texts = {path: path.read_text() for path in pin.files(copy)}
    assert run(monkeypatch, copy, "--check") == 0
    assert run(monkeypatch, copy) == 0
    assert texts == {path: path.read_text() for path in pin.files(copy)}
    for path, text in texts.items():
        original = (ROOT / path.relative_to(copy)).read_text()
        assert re.sub(r"@sha256:[0-9a-f]{64}$", "", text, flags=re.MULTILINE) == original
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim@sha256:\w{64}$", texts[copy / "infra/Dockerfile"], re.MULTILINE)


@pytest.mark.parametrize("answer", ["echo not found >&2; exit 1", "echo latest"])
def test_nothing_is_written_if_a_digest_is_missing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    shell_program(copy.parent / "bin/crane", answer)
    before = {path: path.read_text() for path in pin.files(copy)}
    assert run(monkeypatch, copy) == 1
    assert "crane found no digest of" in capsys.readouterr().err
    assert before == {path: path.read_text() for path in pin.files(copy)}
