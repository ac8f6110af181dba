"""Watches mp3burst on a Knative cluster: pods by kubectl, CPU by the kubelets, queues by RabbitMQ's management API."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from functions.sweep.queues import QueuesUnknown, queue_depths
from scripts.loadtest.embedded import all_processes, tree
from scripts.loadtest.recording import Meter, Platform, Snapshot, Standing, cpus_of

_SERVICE = "serving.knative.dev/service"
_NAME = "app.kubernetes.io/name"
#: A label of the pods that receive and deliver events.
_BROKER = "eventing.knative.dev/broker"
#: The namespaces of Knative itself.
_PLATFORM = ("knative-serving", "knative-eventing", "kourier-system", "rabbitmq-system")
_CPU = re.compile(r'^pod_cpu_usage_seconds_total\{namespace="([^"]+)",pod="([^"]+)"\} (\S+)', re.MULTILINE)


class CannotWatch(Exception):
    """kubectl or RabbitMQ does not answer; the text has its error."""


class Knative:
    """A cluster that kubectl reaches."""

    name = "knative"

    def __init__(self, kubectl: Sequence[str], namespace: str, rabbitmq: str) -> None:
        """Prepares the calls; makes none yet.

        Args:
            kubectl: the command, with the options that select the cluster.
            namespace: the namespace of mp3burst.
            rabbitmq: the management API's URL with user and password; empty to leave out the queues.
        """
        self._kubectl = list(kubectl)
        self._namespace = namespace
        self._rabbitmq = rabbitmq
        self._meter = Meter()

    def snapshot(self) -> Snapshot:
        """Returns the current state.

        Raises:
            CannotWatch: the cluster does not answer.
        """
        pods = [pod for pod in self._json("get", "pods", "-A", "-o", "json")["items"] if _is_scheduled(pod)]
        owners = {_key(pod): owner for pod in pods if (owner := owner_of(pod, self._namespace))}
        mine = [pod for pod in pods if _key(pod) in owners]
        counters: dict[str, tuple[str, float]] = {}
        for node in sorted({pod["spec"]["nodeName"] for pod in mine}):
            metrics = self._run("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
            counters |= {key: (owners[key][0], used) for key, used in cpu_seconds(metrics) if key in owners}
        functions = [(owners[_key(pod)][0], pod) for pod in mine if owners[_key(pod)][1] is None]
        return Snapshot(
            pods=_count(name for name, _ in functions),
            queues=self._queues(),
            cpu=self._meter.read(counters),
            cores={name: _reserved(pod) for name, pod in functions},
            standing=_standing((owners[_key(pod)], pod) for pod in mine),
        )

    def _queues(self) -> dict[str, int]:
        if not self._rabbitmq:
            return {}
        try:
            return queue_depths(self._rabbitmq, self._namespace)
        except QueuesUnknown as error:
            raise CannotWatch(str(error)) from error

    def _json(self, *arguments: str) -> Any:
        return json.loads(self._run(*arguments))

    def _run(self, *arguments: str) -> str:
        try:
            done = subprocess.run([*self._kubectl, *arguments], check=False, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotWatch(f"{self._kubectl[0]} could not be run: {error}.") from error
        if done.returncode:
            raise CannotWatch(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()[-500:]}")
        return done.stdout


class WithServers:
    """Adds databases that run as processes of this machine beside a cluster to its snapshots."""

    def __init__(self, platform: Platform, servers: Mapping[str, int]) -> None:
        """Prepares the calls; makes none yet.

        Args:
            platform: the cluster.
            servers: the process id of each server by its name.
        """
        self.name = platform.name
        self._platform = platform
        self._servers = servers
        self._meter = Meter()

    def snapshot(self) -> Snapshot:
        """Returns the current state of the cluster and the servers."""
        snapshot = self._platform.snapshot()
        processes = all_processes()
        counters = {str(pid): (name, tree(pid, processes)) for name, pid in self._servers.items()}
        return replace(
            snapshot,
            cpu={**snapshot.cpu, **self._meter.read(counters)},
            standing={**snapshot.standing, **{name: Standing(1, anyway=True) for name in self._servers}},
        )


def owner_of(pod: Any, namespace: str) -> tuple[str, bool | None] | None:
    """Returns what a pod belongs to.

    Returns:
        (function, None) for a pod of a function, also of the Jobs of sweep. (name, anyway) for a pod that runs whether
        anybody uploads or not, with ``anyway`` as in ``Standing``. None for a pod of another application or of another
        Job, which belongs to the installation.
    """
    metadata = pod["metadata"]
    own = metadata["namespace"] == namespace
    labels = metadata.get("labels", {})
    function = labels.get(_SERVICE) or (labels.get(_NAME) == "sweep" and "sweep")
    if function:
        return (function, None) if own else None
    owner = next(iter(metadata.get("ownerReferences", [])), {"kind": "", "name": metadata["name"]})
    if owner["kind"] == "Job" or not (own or metadata["namespace"] in _PLATFORM):
        return None
    if not own:
        return metadata["namespace"], False
    if _BROKER in labels:
        return "broker", False
    name = str(owner["name"])
    if owner["kind"] == "ReplicaSet":
        name = re.sub(r"-[a-z0-9]{5,10}$", "", name)  # named for its Deployment, with a hash
    return name, owner["kind"] == "StatefulSet"


def cpu_seconds(metrics: str) -> Iterator[tuple[str, float]]:
    """Yields (NAMESPACE/POD, CPU seconds so far) from a kubelet's /metrics/resource."""
    for namespace, pod, seconds in _CPU.findall(metrics):
        yield f"{namespace}/{pod}", float(seconds)


def _is_scheduled(pod: Any) -> bool:
    return "nodeName" in pod["spec"] and pod["status"].get("phase") in ("Pending", "Running")


def _key(pod: Any) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names))


def _standing(owned: Iterable[tuple[tuple[str, bool | None], Any]]) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for (name, anyway), pod in owned:
        if anyway is not None:
            before = found.get(name, Standing(0))
            found[name] = Standing(before.pods + 1, anyway, before.cores + _reserved(pod))
    return found


def _reserved(pod: Any) -> float:
    requests = (one.get("resources", {}).get("requests", {}) for one in pod["spec"]["containers"])
    return sum(cpus_of(each.get("cpu", "0")) for each in requests)
