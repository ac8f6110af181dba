"""Builds images, named by a digest of their contents, and brings them to the cluster."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.deployment.cluster import ROOT, CannotDeploy, command, run, say

#: Files of every image of infra/Dockerfile, and of every function's image.
_ALL = (
    "infra/Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "requirements.lock",
    "infra/__init__.py",
    "infra/extra_requirements.py",
)
_FUNCTIONS = (
    "infra/serve.py",
    "infra/worker.py",
    "infra/slow_clients.py",
    "infra/once_a_second.py",
    "infra/pushed.py",
    "infra/front.py",
)
#: Folders of functions/ that infra/Dockerfile copies into every function's image, and into that of migrations.
_LIBRARIES = ("auth", "media", "mp3", "outgoing", "state")
_FOR_MIGRATIONS = ("state",)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Images that are built at once.
_AT_ONCE = 3


def _files(name: str) -> Iterator[Path]:
    if name == "gateway":
        yield from (path for path in (ROOT / "functions/gateway").iterdir() if path.is_file())
        yield from _page()
        yield from _documents()
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
        yield from _migrations()
    else:
        yield from (ROOT / file for file in _FUNCTIONS)
        yield from (ROOT / "functions" / name).rglob("*.py")


def _migrations() -> Iterator[Path]:
    return (path for path in (ROOT / "infra/migrations").rglob("*") if path.suffix in {".py", ".mako"})


def _page() -> Iterator[Path]:
    """Yields the files that the page is made from."""
    site = ROOT / "functions/gateway/site"
    yield from (path for path in site.iterdir() if path.is_file())
    for folder in ("public", "src"):
        yield from (path for path in (site / folder).rglob("*") if path.is_file())


def _documents() -> Iterator[Path]:
    """Yields the files that the documents of the API are made from."""
    yield from (ROOT / file for file in (*_ALL[1:], "infra/front.py", "functions/auth/limits.py"))
    yield from (ROOT / "events").glob("*.py")
    yield from (ROOT / "functions").glob("*.py")
    yield from (ROOT / "functions").rglob("api.py")
    yield from (path for path in (ROOT / "infra/apidocs").iterdir() if path.is_file())


def tag(name: str) -> str:
    """Returns the image's tag: 12 hexadecimal digits that change exactly when its contents do."""
    return _digest(_files(name), " ".join(_options(name)))


def tables() -> str:
    """Returns 12 hexadecimal digits that change exactly when the migrations do: the tables and who may use them."""
    return _digest(_migrations())


def _digest(files: Iterable[Path], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for path in sorted(files):
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
        bases = [f"{name}={image}" for name in ("NGINX", "NODE") if (image := os.environ.get(f"{name}_IMAGE"))]
        return ["-f", "functions/gateway/Dockerfile", *(word for base in bases for word in ("--build-arg", base))]
    return ["-f", "infra/Dockerfile", "--build-arg", f"FUNCTION={name}"]


class Builder:
    """Builds images and brings them to the cluster.

    The variable ``BUILD`` names a command that does both, called as ``BUILD IMAGE FOLDER -- OPTIONS`` with the options
    of ``docker build``. Without it docker, podman or buildah builds the image, which is then pushed, or passed to the
    command ``LOAD``, called as ``LOAD IMAGE``: ``kind load docker-image``, ``minikube image load``. What was pushed is
    used by its digest: the registry cannot serve anything else under that name.
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
        self._load = command("LOAD", "") if os.environ.get("LOAD") else None

    def build_all(self, images: Mapping[str, str]) -> dict[str, str]:
        """Builds images, several at once: pip waits for its index half of the time.

        Args:
            images: the full name of each image by its short name.

        Returns:
            The same, with the digests of the images that were pushed.

        Raises:
            CannotDeploy: a build failed.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(images, pool.map(self.build, images, images.values()), strict=True))

    def build(self, name: str, image: str) -> str:
        """Builds one image, brings it to the cluster, and returns its name, with its digest if it was pushed.

        Raises:
            CannotDeploy: the build failed.
        """
        say(f"  {image}")
        options = _options(name)
        if self._all:
            run([*self._all, image, ".", "--", *options])
            return image
        run([self._tool, "build", *options, "-t", image, "."])
        if self._load:
            run([*self._load, image])
            return image
        return f"{image}@{self._push(image)}"

    def _push(self, image: str) -> str:
        """Pushes an image and returns the digest under which the registry has it."""
        if self._tool == "docker":
            run(["docker", "push", image])
            report = run(["docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image])
            known: list[str] = json.loads(report)
        else:
            with tempfile.NamedTemporaryFile(prefix="mp3burst-") as file:
                run([self._tool, "push", "--digestfile", file.name, image])
                known = [f"{without_tag(image)}@{Path(file.name).read_text().strip()}"]
        digests = [digest for name, _, digest in (each.partition("@") for each in known) if name == without_tag(image)]
        if not digests or not _DIGEST.fullmatch(digests[0]):
            raise CannotDeploy(f"{self._tool} reports no digest of {image}: check that the registry has it.")
        return digests[0]


def without_tag(image: str) -> str:
    """Returns ``REGISTRY/NAME`` of ``REGISTRY/NAME:TAG``."""
    return image.rpartition(":")[0]


def in_use(images: Mapping[str, str], running: Iterable[str]) -> dict[str, str]:
    """Returns those of the images that run in the cluster, as they are named there: perhaps with a digest.

    Args:
        images: the full name of each image by its short name.
        running: the images of the cluster's containers.
    """
    known = {image.partition("@")[0]: image for image in running}
    return {name: known[image] for name, image in images.items() if image in known}
