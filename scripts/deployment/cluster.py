"""The cluster, by the programs kubectl and kn; the variables KUBECTL and KN name others, with arguments if need be."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMESPACE = "mp3burst"
ROOT = Path(__file__).resolve().parents[2]


class CannotDeploy(Exception):
    """Something is missing or failed; the text is one sentence that says what to do."""


def say(*words: object) -> None:
    """A line of progress."""
    print(*words, flush=True)


def command(variable: str, default: str) -> list[str]:
    """The words of a command that a variable may name.

    Raises:
        CannotDeploy: there is no such program.
    """
    words = shlex.split(os.environ.get(variable) or default)
    if not shutil.which(words[0]):
        raise CannotDeploy(f"{words[0]} is needed: install it, or name another program with {variable}=.")
    return words


def run(
    words: Sequence[str | Path], given: str | None = None, environ: Mapping[str, str] | None = None, check: bool = True
) -> str:
    """Run a program; what it wrote to its standard output.

    Args:
        words: the program and its arguments.
        given: its standard input.
        environ: variables beside those that are set.
        check: whether a failure counts; otherwise it is an empty answer.

    Raises:
        CannotDeploy: it failed; what it wrote to standard error is in the text.
    """
    done = subprocess.run(
        [str(word) for word in words],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        env={**os.environ, **(environ or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and check:
        shown = " ".join(str(word) for word in words)
        raise CannotDeploy(f"`{shown}` failed:\n{(done.stderr or done.stdout).strip()}")
    return "" if done.returncode else done.stdout


class Cluster:
    """What is asked of the cluster, in the project's namespace unless the arguments name another."""

    def __init__(self) -> None:
        self._kubectl, self._kn = command("KUBECTL", "kubectl"), command("KN", "kn")

    def kubectl(self, *arguments: str | Path, given: str | None = None, check: bool = True) -> str:
        """Run kubectl."""
        return run([*self._kubectl, "--namespace", NAMESPACE, *arguments], given, check=check)

    def kn(self, *arguments: str | Path) -> str:
        """Run kn."""
        return run([*self._kn, *arguments, "--namespace", NAMESPACE])

    def get(self, kinds: str, *arguments: str) -> list[dict[str, Any]]:
        """All objects of these kinds; none where there is no such object, or no namespace."""
        text = self.kubectl("get", kinds, *arguments, "--output", "json", "--ignore-not-found")
        found = json.loads(text) if text.strip() else {"items": []}
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Apply manifests."""
        if documents:
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
            for line in self.kubectl("apply", "--filename", "-", given=text).splitlines():
                if not line.endswith("unchanged"):
                    say(f"  {line}")

    def check(self) -> None:
        """Refuse a cluster that lacks something.

        Raises:
            CannotDeploy: it cannot be reached, or has no Knative.
        """
        wanted = {
            "services.serving.knative.dev": "Knative Serving",
            "triggers.eventing.knative.dev": "Knative Eventing",
            "rabbitmqbrokerconfigs.eventing.knative.dev": "Knative's RabbitMQ broker",
            "queues.rabbitmq.com": "RabbitMQ's messaging topology operator",
        }
        known = self.kubectl("get", "customresourcedefinitions", "--output", "name")
        missing = [name for resource, name in wanted.items() if f"/{resource}\n" not in known]
        if missing:
            raise CannotDeploy(
                f"The cluster has no {' and no '.join(missing)}: docs/knative.md says how to install it."
            )
