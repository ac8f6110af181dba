"""Writes a software bill of materials (CycloneDX 1.6, JSON) for each image of infra/Dockerfile, from the lock file.

It lists the Python packages that the image installs, with their versions and hashes. What the base image adds is for
the tool that scans images, such as ``docker buildx build --sbom=true``.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra import extra_requirements

_ROOT: Final = Path(__file__).resolve().parents[1]
#: Only this command needs the tool, so it is not in the lock file.
_TOOL: Final = "cyclonedx-bom==7.5.0"
#: Images without functions-framework.
_WITHOUT_PROJECT: Final = ("bridge", "migrations")


class CannotWrite(Exception):
    """A bill cannot be written; the text says what to do."""


def image_names(root: Path = _ROOT) -> list[str]:
    """Returns the names of the images: every function with an image of its own, the bridge and the migrations."""
    return sorted([*(path.parent.name for path in (root / "functions").glob("*/main.py")), *_WITHOUT_PROJECT])


def tool() -> list[str]:
    """Returns the command that writes bills.

    Raises:
        CannotWrite: neither it nor pipx is installed.
    """
    if found := shutil.which("cyclonedx-py"):
        return [found]
    if pipx := shutil.which("pipx"):
        return [pipx, "run", "--spec", _TOOL, "cyclonedx-py"]
    raise CannotWrite(f"cyclonedx-py is not installed: pip install {_TOOL}, or install pipx.")


def requirements(image: str, project: Mapping[str, object], lock: Mapping[str, list[str]]) -> str:
    """Returns the entries of the lock file that an image installs, as infra/Dockerfile does."""
    direct = list(extra_requirements.direct(project, image))
    if image not in _WITHOUT_PROJECT:
        direct += extra_requirements.direct(project, "")
    pins = [extra_requirements.without_hashes(entry) for versions in lock.values() for entry in versions]
    return "\n".join(extra_requirements.locked(extra_requirements.closure(direct, pins), lock)) + "\n"


def write(image: str, content: str, file: Path) -> None:
    """Writes the bill of an image that installs these entries of the lock file.

    Raises:
        CannotWrite: the tool failed.
    """
    options = ["--pyproject", str(_ROOT / "pyproject.toml"), "--output-reproducible", "--output-file", str(file)]
    done = subprocess.run(
        [*tool(), "requirements", *options, "-"], input=content, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotWrite(f"The bill of {image} could not be written:\n{done.stderr.strip()}")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/sbom", description=__doc__)
    default = Path("sbom")
    parser.add_argument("--output", type=Path, default=default, metavar="DIR", help="where to write them (sbom)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    project, lock = extra_requirements.read()
    try:
        for image in image_names():
            file = options.output / f"{image}.cdx.json"
            write(image, requirements(image, project, lock), file)
            print(file, flush=True)
    except (CannotWrite, extra_requirements.NotLocked) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
