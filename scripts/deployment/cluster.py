"""Calls kubectl and kn; the variables KUBECTL and KN may name other commands, with arguments."""

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
#: The key in Kourier's ConfigMap: whether Envoy appends the address that a client connects from to X-Forwarded-For.
_REMOTE_ADDRESS = "use-remote-address"
#: The key in Knative's ConfigMap of the network: whether its activator sends requests to pods, or to their Service.
_MESH = "mesh-compatibility-mode"


class CannotDeploy(Exception):
    """Something is missing or failed; the text says what happened and what to do."""


def say(*words: object) -> None:
    """Prints a line of progress."""
    print(*words, flush=True)


def command(variable: str, default: str) -> list[str]:
    """Returns the words of the command that a variable names, or of the default.

    Raises:
        CannotDeploy: the program is not installed.
    """
    words = shlex.split(os.environ.get(variable) or default)
    if not shutil.which(words[0]):
        raise CannotDeploy(f"{words[0]} is not installed: install it, or name another program with {variable}=.")
    return words


def run(
    words: Sequence[str | Path], stdin: str | None = None, environ: Mapping[str, str] | None = None, check: bool = True
) -> str:
    """Runs a program and returns its standard output.

    Args:
        words: the program and its arguments.
        stdin: the standard input.
        environ: additional environment variables.
        check: whether a failure raises an error; otherwise the output is empty.

    Raises:
        CannotDeploy: the program failed; the text has its standard error.
    """
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
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
    """Calls the cluster, in mp3burst's namespace unless the arguments name another."""

    def __init__(self) -> None:
        self._kubectl = command("KUBECTL", "kubectl")
        self._kn = command("KN", "kn")

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Runs kubectl."""
        return run([*self._kubectl, "--namespace", NAMESPACE, *arguments], stdin, check=check)

    def kn(self, *arguments: str | Path) -> str:
        """Runs kn."""
        return run([*self._kn, *arguments, "--namespace", NAMESPACE])

    def get(self, kinds: str, *arguments: str) -> list[dict[str, Any]]:
        """Returns all objects of these kinds; none if there are no such objects or no namespace."""
        text = self.kubectl("get", kinds, *arguments, "--output", "json", "--ignore-not-found")
        found = json.loads(text) if text.strip() else {"items": []}
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Applies manifests and prints what changed."""
        if documents:
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
            for line in self.kubectl("apply", "--filename", "-", stdin=text).splitlines():
                if not line.endswith("unchanged"):
                    say(f"  {line}")

    def check(self) -> None:
        """Checks that the cluster has everything that mp3burst needs.

        Raises:
            CannotDeploy: it cannot be reached, or something is not installed.
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
                f"The cluster has no {' and no '.join(missing)}: docs/knative.md describes the installation."
            )
        self._check_kourier()
        self._check_activator()

    def _serving(self, name: str) -> dict[str, str] | None:
        """Returns the data of a ConfigMap of Knative Serving; None if there is none or it may not be read."""
        command = ("get", "configmap", name, "--ignore-not-found", "--output", "json")
        text = self.kubectl("--namespace", "knative-serving", *command, check=False)
        return json.loads(text).get("data", {}) if text.strip() else None

    def _check_kourier(self) -> None:
        # Without the setting Envoy passes on the X-Forwarded-For of clients as it is, so that everyone could choose the
        # address that failed logins are counted for. Another ingress has no such ConfigMap; ours may not be readable.
        data = self._serving("config-kourier")
        if data is not None and "true" not in (data.get(_REMOTE_ADDRESS), data.get("enable-proxy-protocol")):
            patch = json.dumps({"data": {_REMOTE_ADDRESS: "true"}})
            raise CannotDeploy(
                "Kourier lets clients choose their address by X-Forwarded-For. Change this for the whole cluster, then "
                "deploy again:\n"
                f"  kubectl -n knative-serving patch configmap config-kourier --type merge -p '{patch}'"
            )

    def _check_activator(self) -> None:
        # By default the activator finds out by itself whether there is a service mesh: if its probe of a pod fails and
        # that of the pod's Service succeeds, it uses the Service from then on. Where pods start slowly that happens
        # without a mesh. The Service picks any pod: an event waits for minutes behind a long conversion, beside idle
        # pods.
        data = self._serving("config-network")
        if data is not None and data.get(_MESH, "auto") == "auto":
            patch = json.dumps({"data": {_MESH: "disabled"}})
            raise CannotDeploy(
                "Knative may send events to busy pods while others are idle. Change this for the whole cluster, then "
                'deploy again; with a service mesh, set "enabled":\n'
                f"  kubectl -n knative-serving patch configmap config-network --type merge -p '{patch}'\n"
                "  kubectl -n knative-serving rollout restart deployment activator autoscaler"
            )
