"""``python infra/extra_requirements.py EXTRA``: prints the entries of requirements.lock that one extra needs.

They include the hashes: an image installs them with ``pip install --no-deps --require-hashes``. The lock file does not
say which package requires which, so pip resolves the extra at the locked versions, without installing anything. Needs
only the standard library and pip, because it runs before anything is installed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class NotLocked(Exception):
    """The extra or a package is missing; ``str(error)`` is the message to print."""


def direct(project: Mapping[str, Any], extra: str) -> Iterator[str]:
    """Yields an extra's requirements from pyproject.toml, including those of the extras it refers to.

    Args:
        project: the table ``project`` of pyproject.toml.
        extra: its name; ``""`` for the project's own dependencies.

    Raises:
        NotLocked: there is no such extra.
    """
    if extra and extra not in project["optional-dependencies"]:
        raise NotLocked(
            f"pyproject.toml has no extra {extra}: choose one of {', '.join(project['optional-dependencies'])}."
        )
    for requirement in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own is None:
            yield requirement
        else:
            for name in own[1].split(","):
                yield from direct(project, name.strip())


def entries(lock: str) -> dict[str, list[str]]:
    """Returns the lock file's entries by package. A package with a version for each Python has several."""
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^\S.*(?:\n[ \t]+\S.*)*", lock, re.MULTILINE):
        found.setdefault(normal(re.split(r"[=\s]", entry, maxsplit=1)[0]), []).append(entry)
    return found


def normal(name: str) -> str:
    """Normalizes a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without_hashes(entry: str) -> str:
    """Returns the entry's requirement and marker, which pip accepts as a constraint."""
    return entry.splitlines()[0].rstrip("\\ ")


def closure(requirements: Iterable[str], constraints: Iterable[str]) -> set[str]:
    """Returns the names of all packages that the requirements lead to, as pip resolves them."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted")
        pins = Path(folder, "pins")
        report = Path(folder, "report")
        wanted.write_text("\n".join(requirements))
        pins.write_text("\n".join(constraints))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*pip, *options, "-r", str(wanted), "-c", str(pins)], check=True, stdout=sys.stderr)
        return {normal(item["metadata"]["name"]) for item in json.loads(report.read_text())["install"]}


def locked(names: Iterable[str], lock: Mapping[str, list[str]]) -> list[str]:
    """Returns the entries of these packages.

    Raises:
        NotLocked: the lock file lacks one of them.
    """
    wanted = sorted(names)
    if missing := [name for name in wanted if name not in lock]:
        raise NotLocked(f"requirements.lock has no {', '.join(missing)}: regenerate it as CONTRIBUTING.md describes.")
    return [entry for name in wanted for entry in lock[name]]


def read() -> tuple[Mapping[str, Any], dict[str, list[str]]]:
    """Returns the table ``project`` of pyproject.toml, and the lock file's entries by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project, entries((ROOT / "requirements.lock").read_text())


def main() -> int:
    """Runs the command; the exit status is 1 if the lock file lacks something."""
    parser = argparse.ArgumentParser(description="Prints the entries of requirements.lock that one extra needs.")
    parser.add_argument("extra", help="its name in pyproject.toml")
    parser.add_argument("--with-project", action="store_true", help="include the project's own dependencies")
    options = parser.parse_args()
    project, lock = read()
    try:
        wanted = [*direct(project, options.extra), *(direct(project, "") if options.with_project else ())]
        pins = [without_hashes(entry) for versions in lock.values() for entry in versions]
        print("\n".join(locked(closure(wanted, pins), lock)))  # noqa: T201 - the answer to a command
    except NotLocked as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer to a command
        return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
