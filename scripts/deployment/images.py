"""Images: which there are, their names by what is in them, and how they get to where the cluster finds them."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.deployment.cluster import ROOT, CannotDeploy, command, run, say

#: What goes into every image of infra/Dockerfile, and into those of functions.
_ALL = ("infra/Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "infra/extra_requirements.py")
_FUNCTIONS = ("infra/serve.py", "infra/slow_clients.py")
#: Folders of functions/ that infra/Dockerfile copies into the image of every function, and into that of migrations.
_LIBRARIES = ("auth", "media", "state")
_FOR_MIGRATIONS = ("state",)
#: How many are built at once.
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
    """The image's tag: 12 hexadecimal digits that change with what goes into it, and with nothing else."""
    digest = hashlib.sha256(" ".join(_options(name)).encode())
    for path in sorted(_files(name)):
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def names(wanted: Iterable[str], registry: str, fixed: str | None) -> dict[str, str]:
    """The full name of each image: ``REGISTRY/NAME:TAG``.

    Args:
        wanted: which.
        registry: where they are, with a path if there is one.
        fixed: the tag of all of them, where somebody else built them.
    """
    return {name: f"{registry}/{name}:{fixed or tag(name)}" for name in sorted(wanted)}


def _options(name: str) -> list[str]:
    if name == "gateway":
        base = os.environ.get("NGINX_IMAGE")
        return ["-f", "functions/gateway/Dockerfile", *(["--build-arg", f"NGINX={base}"] if base else [])]
    return ["-f", "infra/Dockerfile", "--build-arg", f"FUNCTION={name}"]


class Builder:
    """Builds images and brings them to the cluster.

    ``BUILD`` names a command that does both, called as ``BUILD IMAGE FOLDER -- OPTIONS`` with the
    options of ``docker build``. Otherwise docker, podman or buildah does, and the image is pushed or given to ``LOAD``,
    called as ``LOAD IMAGE``: ``kind load docker-image``, ``minikube image load``.
    """

    def __init__(self) -> None:
        self._all = command("BUILD", "") if os.environ.get("BUILD") else None
        if self._all:
            return
        self._tool = next((tool for tool in ("docker", "podman", "buildah") if shutil.which(tool)), "")
        if not self._tool:
            raise CannotDeploy(
                "docker, podman or buildah is needed to build images; --tag takes images that are built."
            )
        self._deliver = command("LOAD", f"{self._tool} push")

    def build_all(self, images: Mapping[str, str]) -> None:
        """Build images, several at once: pip waits for its index half of the time.

        Args:
            images: the full name of each by its short one.

        Raises:
            CannotDeploy: that failed.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(self.build, images, images.values()):
                pass

    def build(self, name: str, image: str) -> None:
        """Build one image, so that the cluster finds it.

        Raises:
            CannotDeploy: that failed.
        """
        say(f"  {image}")
        options = _options(name)
        if self._all:
            run([*self._all, image, ".", "--", *options])
        else:
            run([self._tool, "build", *options, "-t", image, "."])
            run([*self._deliver, image])
