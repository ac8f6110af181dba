"""Pins the images of other projects to digests: writes ``NAME:TAG@sha256:...`` wherever an image is named by its tag.

Registries may serve another image under the same tag tomorrow, but never under the same digest.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[1]
#: Each prints the digest of an image for all architectures; the image's name follows.
_TOOLS: Final = {
    "crane": ("crane", "digest"),
    "skopeo": ("skopeo", "inspect", "--format", "{{.Digest}}"),
    "docker": ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}"),
}
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
#: ``image: NAME:TAG`` in compose.yaml and manifests; ``ARG PYTHON=TAG``, ``ARG NGINX=NAME:TAG``, ``ARG NODE=NAME:TAG``
#: in Dockerfiles.
_NAMED: Final = re.compile(
    r"^(?P<before>\s*(?:- )?image: |ARG (?P<arg>PYTHON|NGINX|NODE)=)(?P<image>(?!mp3burst/)[\w./:-]+)(?:@sha256:\w+)?$",
    re.MULTILINE,
)


class CannotPin(Exception):
    """A digest could not be found; the text says what to do."""


def files(root: Path) -> Iterator[Path]:
    """Yields the files that name images of other projects."""
    yield root / "infra/Dockerfile"
    yield root / "functions/gateway/Dockerfile"
    yield root / "infra/compose.yaml"
    yield from sorted((root / "infra").glob("*/*.yaml"))


def images(text: str) -> list[tuple[str, bool]]:
    """Returns the images that a file names, with their tags, and whether each is pinned."""
    return [(_full(match), "@" in match[0]) for match in _NAMED.finditer(text)]


def pinned(text: str, digests: Mapping[str, str]) -> str:
    """Returns the text with the digest of each image behind its tag."""
    return _NAMED.sub(lambda match: f"{match['before']}{match['image']}@{digests[_full(match)]}", text)


def _full(match: re.Match[str]) -> str:
    return f"python:{match['image']}" if match["arg"] == "PYTHON" else match["image"]


def digest(image: str) -> str:
    """Asks the registry for an image's digest.

    Raises:
        CannotPin: no tool is installed, or it fails.
    """
    tool = next((tool for tool in _TOOLS if shutil.which(tool)), None)
    if tool is None:
        raise CannotPin(f"To ask a registry for digests, install one of {', '.join(_TOOLS)}.")
    host = image.partition("/")[0]
    name = image if "." in host and "/" in image else f"docker.io/{image if '/' in image else f'library/{image}'}"
    argument = f"docker://{name}" if tool == "skopeo" else name
    done = subprocess.run([*_TOOLS[tool], argument], capture_output=True, text=True, check=False)
    if done.returncode or not _DIGEST.fullmatch(done.stdout.strip()):
        raise CannotPin(f"{tool} found no digest of {image}:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def main(root: Path = _ROOT) -> int:
    """Returns the exit status: 0 if every image is pinned."""
    parser = argparse.ArgumentParser(prog="scripts/pin", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; list the images without a digest")
    options = parser.parse_args()
    found = {path: images(path.read_text()) for path in files(root)}
    if options.check:
        unpinned = sorted({image for named in found.values() for image, is_pinned in named if not is_pinned})
        print("\n".join(unpinned) or "Every image is pinned to a digest.")
        return 1 if unpinned else 0
    try:
        digests = {image: digest(image) for image in sorted({image for named in found.values() for image, _ in named})}
    except CannotPin as error:
        print(error, file=sys.stderr)
        return 1
    for path, named in found.items():
        if named:
            path.write_text(pinned(path.read_text(), digests))
    for image, value in digests.items():
        print(f"{image}@{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
