"""knative: cold starts, events and the gateway on a cluster with mp3burst (CLUSTER_INGRESS, KUBECTL, CLUSTER_EXEC)."""

import io
import json
import os
import random
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.benchmarks import timing
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.report import Row, at_most
from scripts.benchmarks.timing import CannotMeasure, Took
from tests.cluster.cluster import Cluster, User, reachable
from tests.e2e.client import PASSWORD, Answer, wave_bytes

#: The design's goals, as multiples of the cold start of hello world.
_GOALS = {"login": 1.3, "register": 1.3, "validate": 1.3, "upload": 1.6, "status": 1.6, "download": 1.2}
#: The goal through a gateway that stays up; through one that is at zero as well there are two cold starts.
_GATEWAY_GOAL = 1.4
_EVENT_SECONDS = 0.3
_MAX_OVERHEAD_MS = 5.0
#: Calls each address in turn over a connection of its own and prints the medians in ms, without the first 20 calls.
_LATENCY = """
import http.client, json, statistics, sys, time
targets, headers, count = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
connections = {name: http.client.HTTPConnection(address, timeout=60) for name, (address, _) in targets.items()}
took = {name: [] for name in targets}
for number in range(count + 20):
    for name, (_, host) in targets.items():
        begin = time.perf_counter()
        connections[name].request("POST", "/validate", b"", {**headers, "Host": host})
        answer = connections[name].getresponse()
        answer.read()
        assert answer.status == 200, (name, answer.status)
        if number >= 20:
            took[name].append(time.perf_counter() - begin)
print(json.dumps({name: statistics.median(values) * 1000 for name, values in took.items()}))
"""


def knative(bench: Bench) -> Iterator[Row]:
    """Each function's first answer from zero pods, against hello world with the same image and limits."""
    cluster = reachable()
    if cluster is None:
        raise CannotMeasure("CLUSTER_INGRESS is not set: docs/knative.md describes how to set up a cluster")
    hello = _hello(cluster)
    try:
        yield from _measured(cluster, bench.rounds)
    finally:
        cluster.kubectl("delete", *hello, "--ignore-not-found")


def _measured(cluster: Cluster, rounds: int) -> Iterator[Row]:
    me = User.of(cluster, gateway=False)
    job = me.wait(me.upload(io.BytesIO(wave_bytes(2)), "a.wav")["job"])
    firsts = _firsts(me, job["mp3"])
    measurements = {name: _cold(cluster, first, name) for name, first in firsts.items()}
    visitor = type(me)(me.url, me.token)
    visitor.gateway = True
    measurements["gateway, both at zero"] = _cold(cluster, lambda: visitor.call("GET", "/jobs"), "gateway", "status")
    measurements["gateway"] = _cold(
        cluster, lambda: visitor.call("GET", "/jobs"), "status", meanwhile=lambda: visitor.call("GET", "/")
    )
    measurements["convert"] = lambda: _event(cluster, me)
    took = timing.alternate(measurements, rounds)
    base = timing.median(took["hello"]).seconds
    for name, goal in _GOALS.items():
        mine = timing.median(took[name]).seconds
        ratio = mine / base
        yield Row(
            "knative",
            f"{name}, first answer from zero pods",
            ratio,
            "x",
            f"hello world {base:.2f} s",
            **at_most(ratio, goal),
            details={
                "by the fastest rounds": timing.fastest(took[name], took["hello"]),
                "seconds": mine,
                "each": [one.seconds for one in took[name]],
            },
        )
    for name, what in (("gateway", "that is up"), ("gateway, both at zero", "that is at zero as well")):
        mine = timing.median(took[name]).seconds
        yield Row(
            "knative",
            f"status through a gateway {what}",
            mine / base,
            "x",
            f"hello world {base:.2f} s",
            **(at_most(mine / base, _GATEWAY_GOAL) if name == "gateway" else {}),
            details={"seconds": mine, "each": [one.seconds for one in took[name]]},
        )
    event = timing.median(took["convert"]).seconds
    yield Row(
        "knative",
        "upload answered to running convert, from zero",
        event,
        "s",
        f"hello world {base:.2f} s + {_EVENT_SECONDS} s",
        **at_most(event, base + _EVENT_SECONDS),
        details={"each": [one.seconds for one in took["convert"]], "hello": [one.seconds for one in took["hello"]]},
    )
    if inside := os.environ.get("CLUSTER_EXEC"):
        yield from _overhead(cluster, me, shlex.split(inside))
    yield from _sizes(cluster)


def _firsts(me: User, mp3: str) -> dict[str, Callable[[], Answer]]:
    """Returns a real first request for each function."""
    hello = type(me)(me.url)
    return {
        "hello": lambda: hello.call("GET", "/validate", headers={"Host": _host(me, "hello")}),
        "login": lambda: me.login(me.username, PASSWORD),
        "register": lambda: me.register(name="B", username=f"{os.urandom(8).hex()}@example.org", password=PASSWORD),
        "validate": lambda: me.call("POST", "/validate"),
        "upload": lambda: me.try_upload(io.BytesIO(wave_bytes(1)), "a.wav"),
        "status": lambda: me.call("GET", "/jobs"),
        "download": lambda: me.download(mp3),
    }


def _host(me: User, function: str) -> str:
    return f"{function}.{me.hosts['validate'].partition('.')[2]}"


def _cold(
    cluster: Cluster, first: Callable[[], Answer], *names: str, meanwhile: Callable[[], object] = lambda: None
) -> Callable[[], Took]:
    """Returns what measures a first answer once the functions are at zero; ``meanwhile`` keeps others up."""

    def take() -> Took:
        _await_zero(cluster, *names, meanwhile=meanwhile)
        begin = time.perf_counter()
        answer = first()
        seconds = time.perf_counter() - begin
        if answer.status >= 300:
            raise CannotMeasure(f"{names[0]} answered {answer.status}")
        return Took(seconds)

    return take


def _await_zero(cluster: Cluster, *names: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 300
    while any(cluster.pods(name) for name in names):
        if time.monotonic() > deadline:
            raise CannotMeasure(f"{', '.join(names)}: still not at zero after 300 s")
        meanwhile()
        time.sleep(1)
    meanwhile()
    # Terminating pods still use the CPU. kubelet looks once a second which pods run. How long a new one waits for that
    # must not depend on when the last one ended.
    time.sleep(2 + random.random())  # noqa: S311 - not a secret


def _event(cluster: Cluster, me: User) -> Took:
    _await_zero(cluster, "convert")
    me.call("GET", "/upload")
    me.call("GET", "/jobs")
    job = me.upload(io.BytesIO(wave_bytes(2)), "a.wav")["job"]
    begin = time.perf_counter()
    while me.job(job)["status"] == "uploaded":
        time.sleep(0.05)  # with ?wait= the answer could be a quarter of a second late
    return Took(time.perf_counter() - begin)


def _overhead(cluster: Cluster, me: User, inside: list[str]) -> Iterator[Row]:
    type(me)(me.url, me.token).call("POST", "/validate", headers={"Host": me.hosts["gateway"]})
    (name, *_) = cluster.pods("validate")
    (pod,) = cluster.get("pods", f"--field-selector=metadata.name={name}")
    (kourier,) = cluster.get("services", "--namespace", "kourier-system", "--field-selector=metadata.name=kourier")
    ingress = kourier["spec"]["clusterIP"]
    targets = {
        "pod": (f"{pod['status']['podIP']}:8080", "pod"),
        "own host": (ingress, me.hosts["validate"]),
        "gateway": (ingress, me.hosts["gateway"]),
    }
    command = [*inside, "python3", "-c", _LATENCY, json.dumps(targets)]
    command += [json.dumps({"Authorization": f"Bearer {me.token}"}), "300"]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    overhead = found["gateway"] - found["pod"]
    yield Row(
        "knative",
        "gateway and Kourier twice, beyond the pod (p50)",
        overhead,
        "ms",
        f"the pod itself {found['pod']:.1f} ms",
        **at_most(overhead, _MAX_OVERHEAD_MS),
        details={"its own host, beyond the pod, ms": found["own host"] - found["pod"]},
    )


def _sizes(cluster: Cluster) -> Iterator[Row]:
    sizes: dict[str, int] = {}
    for node in cluster.get("nodes"):
        for image in node["status"].get("images", ()):
            sizes |= dict.fromkeys(image["names"], image["sizeBytes"])
    running = {
        str(each["spec"]["template"]["spec"]["containers"][0]["image"])
        for each in cluster.get("services.serving.knative.dev")
    }
    found = {name.rpartition("/")[2].partition(":")[0]: sizes[name] / 1e6 for name in sorted(running) if name in sizes}
    if found:
        median = statistics.median(found.values())
        reference = "as the node keeps them, base image included"
        yield Row("knative", "image size, the median", median, "MB", reference, details={"MB": found})


def _hello(cluster: Cluster) -> list[str]:
    """Deploys hello world with the image, limits and scaling of validate; returns the objects to delete."""
    (validate,) = cluster.get("services.serving.knative.dev", "--field-selector=metadata.name=validate")
    code = (Path(__file__).parent / "hello.py").read_text()
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hello"}, "data": {"hello.py": code}}
    template: dict[str, Any] = validate["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container["env"] = [each for each in container["env"] if not each["name"].startswith("FUNCTION_")]
    container["env"] += [
        {"name": "FUNCTION_TARGET", "value": "hello"},
        {"name": "FUNCTION_SOURCE", "value": "/hello/hello.py"},
    ]
    container["volumeMounts"].append({"name": "hello", "mountPath": "/hello"})
    template["spec"]["volumes"].append({"name": "hello", "configMap": {"name": "hello"}})
    template["metadata"].pop("name", None)
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"template": template},
    }
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [config_map, service]})
    cluster.kubectl("apply", "--filename", "-", stdin=text)
    cluster.kubectl("wait", "--for=condition=Ready", "services.serving.knative.dev/hello", "--timeout=120s")
    return ["services.serving.knative.dev/hello", "configmap/hello"]
