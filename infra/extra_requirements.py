"""``python infra/extra_requirements.py EXTRA``: the entries of requirements.lock that one extra needs, hashes and all.

An image installs these with ``pip install --no-deps --require-hashes``. The lock file has no edges, so pip is asked,
without installing anything, what the extra leads to at the locked versions. Nothing but the standard library and pip
is needed: this runs where nothing is installed yet.
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
    """What is asked for is not in the lock file; the text is the sentence to print."""


def direct(project: Mapping[str, Any], extra: str) -> Iterator[str]:
    """The requirements of an extra as pyproject.toml has them, those of the extras that it names included.

    Args:
        project: the table ``project`` of pyproject.toml.
        extra: its name; ``""`` for what the project itself depends on.

    Raises:
        NotLocked: there is no such extra.
    """
    if extra and extra not in project["optional-dependencies"]:
        raise NotLocked(
            f"pyproject.toml has no extra {extra}: take one of {', '.join(project['optional-dependencies'])}."
        )
    for requirement in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own is None:
            yield requirement
        else:
            for name in own[1].split(","):
                yield from direct(project, name.strip())


def entries(lock: str) -> dict[str, list[str]]:
    """The lock file's entries by the package's name; one that has several versions, by Python's, has several."""
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^\S.*(?:\n[ \t]+\S.*)*", lock, re.MULTILINE):
        found.setdefault(normal(re.split(r"[=\s]", entry, maxsplit=1)[0]), []).append(entry)
    return found


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without_hashes(entry: str) -> str:
    """The requirement alone, with its marker: what pip takes for a constraint."""
    return entry.splitlines()[0].rstrip("\\ ")


def closure(requirements: Iterable[str], constraints: Iterable[str]) -> set[str]:
    """The names of all packages that these requirements lead to, by pip and its index."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, pins, report = Path(folder, "wanted"), Path(folder, "pins"), Path(folder, "report")
        wanted.write_text("\n".join(requirements))
        pins.write_text("\n".join(constraints))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        how = ["--dry-run", "--ignore-installed", "--only-binary", ":all:", "--report", str(report)]
        subprocess.run([*pip, *how, "-r", str(wanted), "-c", str(pins)], check=True, stdout=sys.stderr)
        return {normal(item["metadata"]["name"]) for item in json.loads(report.read_text())["install"]}


def locked(names: Iterable[str], lock: Mapping[str, list[str]]) -> list[str]:
    """The entries of these packages.

    Raises:
        NotLocked: the lock file has not all of them.
    """
    wanted = sorted(names)
    if missing := [name for name in wanted if name not in lock]:
        raise NotLocked(f"requirements.lock has no {', '.join(missing)}: write it anew, as CONTRIBUTING.md says.")
    return [entry for name in wanted for entry in lock[name]]


def main() -> int:
    """The command; exit status 1 where the lock file lacks something."""
    parser = argparse.ArgumentParser(description="The entries of requirements.lock that one extra needs.")
    parser.add_argument("extra", help="its name in pyproject.toml")
    parser.add_argument("--with-project", action="store_true", help="what the project itself depends on, too")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = entries((ROOT / "requirements.lock").read_text())
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
