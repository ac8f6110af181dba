"""Builds images, named by a digest of their contents, and brings them to the cluster."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.deployment.cluster import ROOT, CannotDeploy, command, run, say

#: Files of every image of infra/Dockerfile, and of every function's image.
_ALL = ("infra/Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "infra/extra_requirements.py")
_FUNCTIONS = ("infra/serve.py", "infra/slow_clients.py")
#: Folders of functions/ that infra/Dockerfile copies into every function's image, and into that of migrations.
_LIBRARIES = ("auth", "media", "state")
_FOR_MIGRATIONS = ("state",)
#: Images that are built at once.
_AT_ONCE = 3


def _files(name: str) -> Iterator[Path]:
    if name == "gateway":
        yield from (ROOT / "functions/gateway").iterdir()
        return
    yield from (ROOT / file for file in _ALL)
    yield from (ROOT / "events").rglob("*.py")
    if name == "bridge":
        yield ROOT / "infra/ping.py"
        return
    yield from (ROOT / "functions").glob("*.py")
    for library in _FOR_MIGRATIONS if name == "migrations" else _LIBRARIES:
        yield from (ROOT / "functions" / library).rglob("*.py")
    if name == "migrations":
        yield from (path for path in (ROOT / "infra/migrations").rglob("*") if path.suffix in {".py", ".mako"})
    else:
        yield from (ROOT / file for file in _FUNCTIONS)
        yield from (ROOT / "functions" / name).rglob("*.py")


def tag(name: str) -> str:
    """Returns the image's tag: 12 hexadecimal digits that change exactly when its contents do."""
    digest = hashlib.sha256(" ".join(_options(name)).encode())
    for path in sorted(_files(name)):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def names(wanted: Iterable[str], registry: str, fixed: str | None) -> dict[str, str]:
    """Returns the full name of each image: ``REGISTRY/NAME:TAG``.

    Args:
        wanted: the short names.
        registry: the registry, with a path if it has one.
        fixed: the tag of all images if they were built elsewhere.
    """
    return {name: f"{registry}/{name}:{fixed or tag(name)}" for name in sorted(wanted)}


def _options(name: str) -> list[str]:
    if name == "gateway":
        base = os.environ.get("NGINX_IMAGE")
        return ["-f", "functions/gateway/Dockerfile", *(["--build-arg", f"NGINX={base}"] if base else [])]
    return ["-f", "infra/Dockerfile", "--build-arg", f"FUNCTION={name}"]


class Builder:
    """Builds images and brings them to the cluster.

    The variable ``BUILD`` names a command that does both, called as ``BUILD IMAGE FOLDER -- OPTIONS`` with the options
    of ``docker build``. Without it docker, podman or buildah builds the image, which is then pushed, or passed to the
    command ``LOAD``, called as ``LOAD IMAGE``: ``kind load docker-image``, ``minikube image load``.
    """

    def __init__(self) -> None:
        self._all = command("BUILD", "") if os.environ.get("BUILD") else None
        if self._all:
            return
        self._tool = next((tool for tool in ("docker", "podman", "buildah") if shutil.which(tool)), "")
        if not self._tool:
            raise CannotDeploy(
                "To build images, install docker, podman or buildah; or use images that are already built with --tag."
            )
        self._deliver = command("LOAD", f"{self._tool} push")

    def build_all(self, images: Mapping[str, str]) -> None:
        """Builds images, several at once: pip waits for its index half of the time.

        Args:
            images: the full name of each image by its short name.

        Raises:
            CannotDeploy: a build failed.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self.build, images, images.values()):
                pass

    def build(self, name: str, image: str) -> None:
        """Builds one image and brings it to the cluster.

        Raises:
            CannotDeploy: the build failed.
        """
        say(f"  {image}")
        options = _options(name)
        if self._all:
            run([*self._all, image, ".", "--", *options])
        else:
            run([self._tool, "build", *options, "-t", image, "."])
            run([*self._deliver, image])
