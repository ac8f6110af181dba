"""Watches mp3burst on a Knative cluster: pods by kubectl, CPU by the kubelets, queues by RabbitMQ's management API."""

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from scripts.loadtest.quantities import cores
from scripts.loadtest.recording import Look, Meter, Standing

_SERVICE = "serving.knative.dev/service"
#: Of the pods that take in and give out events.
_BROKER = "eventing.knative.dev/broker"
#: Whose pods are up for Knative itself, beside those of our own namespace.
_PLATFORM = ("knative-serving", "knative-eventing", "kourier-system", "rabbitmq-system")
_CPU = re.compile(r'^pod_cpu_usage_seconds_total\{namespace="([^"]+)",pod="([^"]+)"\} (\S+)', re.MULTILINE)


class CannotWatch(Exception):
    """kubectl or RabbitMQ does not answer; the text says what it said."""


class Knative:
    """A cluster that kubectl reaches."""

    name = "knative"

    def __init__(self, kubectl: Sequence[str], namespace: str, rabbitmq: str) -> None:
        """Nothing is asked yet.

        Args:
            kubectl: the command, with whatever chooses the cluster.
            namespace: of mp3burst.
            rabbitmq: the management API's URL with user and password; empty where it cannot be reached.
        """
        self._kubectl, self._namespace, self._rabbitmq, self._meter = list(kubectl), namespace, rabbitmq, Meter()

    def look(self) -> Look:
        """What it shows now.

        Raises:
            CannotWatch: it does not answer.
        """
        pods = [pod for pod in self._json("get", "pods", "-A", "-o", "json")["items"] if _uses_something(pod)]
        owners = {_key(pod): owner for pod in pods if (owner := owner_of(pod, self._namespace))}
        mine = [pod for pod in pods if _key(pod) in owners]
        counters: dict[str, tuple[str, float]] = {}
        for node in sorted({pod["spec"]["nodeName"] for pod in mine}):
            metrics = self._run("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
            counters |= {key: (owners[key][0], used) for key, used in cpu_seconds(metrics) if key in owners}
        functions = [(owners[_key(pod)][0], pod) for pod in mine if owners[_key(pod)][1] is None]
        return Look(
            pods=_count(name for name, _ in functions),
            queues=self._queues(),
            cpu=self._meter.read(counters),
            cores={name: _reserved(pod) for name, pod in functions},
            standing=_standing((owners[_key(pod)], pod) for pod in mine),
        )

    def _queues(self) -> dict[str, int]:
        if not self._rabbitmq:
            return {}
        address = urlsplit(self._rabbitmq)
        basic = f"{unquote(address.username or '')}:{unquote(address.password or '')}".encode()
        where = f"{address.scheme}://{address.hostname}:{address.port}{address.path.rstrip('/')}"
        request = urllib.request.Request(  # noqa: S310 - the operator's own URL
            f"{where}/api/queues?columns=name,messages",
            headers={"Authorization": f"Basic {base64.b64encode(basic).decode()}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
                return depths(json.load(answer), self._namespace)
        except (OSError, ValueError) as error:
            raise CannotWatch(f"RabbitMQ's management API does not answer: {error}.") from error

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments))

    def _run(self, *arguments: str) -> str:
        try:
            done = subprocess.run([*self._kubectl, *arguments], check=False, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotWatch(f"{self._kubectl[0]} cannot be run: {error}.") from error
        if done.returncode:
            raise CannotWatch(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def owner_of(pod: Any, namespace: str) -> tuple[str, bool | None] | None:
    """Whom a pod's seconds are counted to, and whether it stands.

    Returns:
        The function and None; or the name of what stands and whether it would be needed without Knative as well, as
        stores are; or None for a pod of somebody else's, or of a Job, which comes with an installation and ends.
    """
    metadata = pod["metadata"]
    own = metadata["namespace"] == namespace
    function = metadata.get("labels", {}).get(_SERVICE)
    if function:
        return (function, None) if own else None
    by = next(iter(metadata.get("ownerReferences", [])), {"kind": "", "name": metadata["name"]})
    if by["kind"] == "Job" or not (own or metadata["namespace"] in _PLATFORM):
        return None
    if not own:
        return metadata["namespace"], False
    if _BROKER in metadata.get("labels", {}):
        return "broker", False
    # A ReplicaSet is named for its Deployment and a hash.
    return re.sub(r"-[a-z0-9]{5,10}$", "", by["name"]) if by["kind"] == "ReplicaSet" else by["name"], (
        by["kind"] == "StatefulSet"
    )


def cpu_seconds(metrics: str) -> Iterator[tuple[str, float]]:
    """(NAMESPACE/POD, CPU seconds so far), of what a kubelet says at /metrics/resource."""
    for namespace, pod, seconds in _CPU.findall(metrics):
        yield f"{namespace}/{pod}", float(seconds)


def depths(queues: Iterable[Any], namespace: str) -> dict[str, int]:
    """Events by Trigger, of what RabbitMQ lists; eventing-rabbitmq names a queue NAMESPACE.TRIGGER.UID.

    Dead letters are in queues whose names begin with ``b.`` (the broker's) and ``t.`` (a Trigger's): they are counted
    under the broker's or the Trigger's name and ``dead letters``.
    """
    found: dict[str, int] = {}
    for queue in queues:
        match = re.fullmatch(rf"([bt]\.)?{re.escape(namespace)}\.([^.]+)\.(.+)", queue["name"])
        if match:
            name = f"{match[2]}, dead letters" if match[1] else match[2]
            found[name] = found.get(name, 0) + queue.get("messages", 0)
    return found


def _uses_something(pod: Any) -> bool:
    return "nodeName" in pod["spec"] and pod["status"].get("phase") in ("Pending", "Running")


def _key(pod: Any) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _standing(owned: Iterable[tuple[tuple[str, bool | None], Any]]) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for (name, anyway), pod in owned:
        if anyway is not None:
            before = found.get(name, Standing(0))
            found[name] = Standing(before.pods + 1, anyway, before.cores + _reserved(pod))
    return found


def _reserved(pod: Any) -> float:
    requests = (one.get("resources", {}).get("requests", {}) for one in pod["spec"]["containers"])
    return sum(cores(each.get("cpu", "0")) for each in requests)
