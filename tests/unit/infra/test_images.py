"""infra/Dockerfile: every image contains all modules that its program imports, ours and others'."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.deployment import images
from tests.support.packages import PROJECT, modules_missing_from
from tests.support.paths import ROOT

FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))
#: Modules that are imported only when they are needed, by the extra of the functions that need them.
LAZY = {"media": ["functions.media.gridfs", "functions.media.directory"], "events": ["events.rabbitmq.publisher"]}

#: Imports modules by name in a process where some installed modules are hidden.
IMPORT = """
import importlib, sys

hidden = set(sys.argv[1].split(","))

class Hider:
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}: the image does not install it", name=name)

sys.meta_path.insert(0, Hider())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def copy_step() -> str:
    """Returns the shell command of the Dockerfile that copies our modules into /app, without compiling them."""
    text = (ROOT / "infra/Dockerfile").read_text()
    found = re.search(r"^RUN (set -eu; \\\n    mkdir -p /app/infra .*?[^\\])\n(?=\n)", text, re.MULTILINE | re.DOTALL)
    assert found, "infra/Dockerfile has no step that copies our modules into /app"
    lines = [line for line in found[1].splitlines() if not re.match(r"\s*(#|python -m compileall)", line)]
    return "\n".join(lines).rstrip("\\")


def build(name: str, app: Path) -> None:
    """Fills ``app`` with what the image of this name has in /app."""
    app.mkdir()
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "FUNCTION": name}
    command = copy_step().replace("/app", str(app))
    subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, env=environ, check=True)


def modules(app: Path, package: str) -> list[str]:
    """Returns the names of all modules of a package, apart from its ``__main__``."""
    paths = sorted((app / package.replace(".", "/")).rglob("*.py"))
    names = (".".join(path.relative_to(app).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return [name for name in names if not name.endswith(".__main__")]


def needed_by_serve() -> set[str]:
    """Returns the modules of infra that ``infra.serve`` names, and those that they name, wherever in the text."""
    found: set[str] = set()
    todo = {"infra.serve"}
    while todo:
        found |= todo
        texts = [(ROOT / f"{name.replace('.', '/')}.py").read_text() for name in todo]
        named = {name for text in texts for name in re.findall(r"^ *from (infra\.\w+) import", text, re.MULTILINE)}
        named |= {f"infra.{name}" for text in texts for name in re.findall(r"^ *from infra import (\w+)$", text, re.M)}
        todo = named - found
    return found


@pytest.mark.parametrize("name", [*FUNCTIONS, "migrations", "bridge"])
def test_tag_of_an_image_depends_on_every_file_in_it(name: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    build(name, app)

    inside = {path.relative_to(app) for path in app.rglob("*.py")}
    assert inside <= {path.relative_to(ROOT) for path in images._files(name)}


def import_all(app: Path, names: list[str], hidden: list[str]) -> None:
    """Imports the modules from ``app`` in a process of their own."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(app), "HOME": "/nonexistent"}
    command = [sys.executable, "-c", IMPORT, ",".join(hidden), *names]
    done = subprocess.run(command, env=environ, cwd=app, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_image_contains_what_the_function_imports(name: str, tmp_path: Path) -> None:
    app = tmp_path / "app"
    build(name, app)

    names = [*modules(app, f"functions.{name}"), *needed_by_serve()]
    for requirement in PROJECT["optional-dependencies"][name]:
        for extra, lazy in LAZY.items():
            if re.match(rf"mp3burst\[.*\b{extra}\b", requirement):
                names += lazy
    import_all(app, names, modules_missing_from(name, with_project=True))


def test_function_image_contains_no_other_function(tmp_path: Path) -> None:
    app = tmp_path / "app"
    build("upload", app)

    assert [path.parent.name for path in app.glob("functions/*/main.py")] == ["upload"]
    copied = {f"infra.{path.stem}" for path in app.glob("infra/*.py")} - {"infra.__init__"}
    assert copied == needed_by_serve()
    assert copied == {file.replace("/", ".").removesuffix(".py") for file in images._FUNCTIONS}


def test_migrations_image_contains_what_migrations_import(tmp_path: Path) -> None:
    app = tmp_path / "app"
    build("migrations", app)

    names = [name for name in modules(app, "infra.migrations") if not name.endswith(".env")]  # only Alembic runs it
    import_all(app, ["infra.migrations.__main__", *names], modules_missing_from("migrations", with_project=False))


def test_bridge_image_contains_what_the_bridge_imports(tmp_path: Path) -> None:
    app = tmp_path / "app"
    build("bridge", app)

    names = ["events.bridge.__main__", *modules(app, "events"), "infra.ping"]
    import_all(app, names, modules_missing_from("bridge", with_project=False))


def test_missing_module_is_noticed(tmp_path: Path) -> None:
    app = tmp_path / "app"
    build("bridge", app)

    with pytest.raises(AssertionError, match="No module named 'pika'"):
        import_all(app, ["events.bridge.__main__"], ["pika"])
