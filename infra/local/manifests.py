"""Reads what a cluster is given, knative/*.yaml, into what this machine has to run. Durations are in seconds."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from events.errors import Mp3burstError
from infra.local.cron import Schedule

#: containerConcurrency 0 means no limit.
_UNLIMITED = 1 << 20

T = TypeVar("T")


class BadManifest(Mp3burstError):
    """A manifest does not say what it has to."""


@dataclass(frozen=True)
class Function:
    """A Service. ``env`` and ``env_from`` are the container's, as in the manifest."""

    name: str
    paths: tuple[str, ...]
    public: bool
    concurrency: int
    min_scale: int
    max_scale: int
    window: float
    timeout: float
    env: tuple[Mapping[str, Any], ...]
    env_from: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Sink:
    """Where events go: a function and a path of it."""

    function: str
    path: str = "/"


@dataclass(frozen=True)
class Trigger:
    """Which events go where, how many at once, and what follows a failure."""

    name: str
    filter: Mapping[str, str]
    subscriber: Sink
    parallelism: int = 1
    retries: int = 0
    exponential: bool = True
    delay: float = 0.0
    dead_letters: Sink | None = None

    def backoff(self, failures: int) -> float:
        """How long to wait after the first, second, ... failure."""
        return self.delay * (2 ** (failures - 1) if self.exponential else failures)


@dataclass(frozen=True)
class Ping:
    """A PingSource."""

    name: str
    schedule: Schedule
    sink: Sink
    content_type: str
    data: bytes


@dataclass(frozen=True)
class Manifests:
    """Everything that was found."""

    functions: Mapping[str, Function]
    triggers: list[Trigger]
    pings: list[Ping]


def read(directory: Path, cores: int, idle: float | None = None) -> Manifests:
    """Read every document of every ``*.yaml``; kinds that mean nothing here are passed over.

    Args:
        directory: where the manifests are.
        cores: how many instances a function has at most that takes one request at a time, since that is CPU work
            and more would only take turns; and one without a max-scale.
        idle: takes the place of every window.

    Raises:
        BadManifest: there is none, or one that makes no sense.
    """
    kinds: dict[str, list[Any]] = {kind: [] for kind in ("Service", "Broker", "Trigger", "PingSource")}
    for path in sorted(directory.glob("*.yaml")):
        try:
            for document in yaml.safe_load_all(path.read_text()):
                if document and ".knative.dev/" in document.get("apiVersion", "") and document["kind"] in kinds:
                    kinds[document["kind"]].append(document)
        except (yaml.YAMLError, AttributeError, KeyError) as error:
            raise BadManifest(f"{path.name} is no manifest: {error}.") from error
    functions = {f.name: f for f in _each(kinds["Service"], lambda document: _function(document, cores, idle))}
    brokers = dict(_each(kinds["Broker"], lambda d: (d["metadata"]["name"], d.get("spec", {}).get("delivery", {}))))
    triggers = _each(kinds["Trigger"], lambda document: _trigger(document, brokers))
    pings = _each(kinds["PingSource"], _ping)
    if not functions:
        raise BadManifest(f"There is no Knative Service in {directory}: name the directory that has the manifests.")
    for sink in [s for t in triggers for s in (t.subscriber, t.dead_letters)] + [p.sink for p in pings]:
        if sink and sink.function not in functions:
            raise BadManifest(f"The manifests send events to {sink.function}, but there is no such Service.")
    return Manifests(functions, triggers, pings)


def _each(documents: list[Any], make: Callable[[Any], T]) -> list[T]:
    made = []
    for document in documents:
        try:
            made.append(make(document))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            name = (document.get("metadata") or {}).get("name")
            raise BadManifest(f"The {document['kind']} {name} is incomplete or wrong: {error!r}.") from error
    return made


def _function(document: Any, cores: int, idle: float | None) -> Function:
    metadata, template = document["metadata"], document["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    scaling = (template.get("metadata") or {}).get("annotations") or {}
    paths = (metadata.get("annotations") or {}).get("mp3burst.dev/paths", "")
    most = int(scaling.get("autoscaling.knative.dev/max-scale", 0)) or cores
    return Function(
        name=metadata["name"],
        paths=tuple(path.strip() for path in paths.split(",") if path.strip()),
        public=(metadata.get("labels") or {}).get("networking.knative.dev/visibility") != "cluster-local",
        concurrency=spec.get("containerConcurrency") or _UNLIMITED,
        min_scale=int(scaling.get("autoscaling.knative.dev/min-scale", 0)),
        max_scale=min(most, cores) if spec.get("containerConcurrency") == 1 else most,
        window=seconds(scaling.get("autoscaling.knative.dev/window", "60s")) if idle is None else idle,
        timeout=float(spec.get("timeoutSeconds", 300)),
        env=tuple(container.get("env", ())),
        env_from=tuple(container.get("envFrom", ())),
    )


def _trigger(document: Any, brokers: Mapping[str, Mapping[str, Any]]) -> Trigger:
    metadata, spec = document["metadata"], document["spec"]
    delivery = {**brokers.get(spec["broker"], {}), **spec.get("delivery", {})}
    annotations = metadata.get("annotations") or {}
    return Trigger(
        name=metadata["name"],
        filter=spec.get("filter", {}).get("attributes", {}),
        subscriber=_sink(spec["subscriber"]),
        parallelism=int(annotations.get("rabbitmq.eventing.knative.dev/parallelism", 1)),
        retries=int(delivery.get("retry", 0)),
        exponential=delivery.get("backoffPolicy", "exponential") == "exponential",
        delay=seconds(delivery.get("backoffDelay", "PT0S")),
        dead_letters=_sink(delivery["deadLetterSink"]) if "deadLetterSink" in delivery else None,
    )


def _ping(document: Any) -> Ping:
    spec = document["spec"]
    name, content_type = document["metadata"]["name"], spec.get("contentType", "application/json")
    return Ping(name, Schedule(spec["schedule"]), _sink(spec["sink"]), content_type, spec.get("data", "").encode())


def _sink(spec: Any) -> Sink:
    # Beside a ref, uri is a path; alone it is the function's address in the cluster.
    if "ref" in spec:
        return Sink(spec["ref"]["name"], spec.get("uri", "/"))
    match = re.fullmatch(r"https?://([^./:]+)[^/]*\.svc[^/]*(/.*)?", spec["uri"])
    if not match:
        raise ValueError(f"{spec['uri']} is not the address of a function")
    return Sink(match[1], match[2] or "/")


def environment(function: Function, known: Mapping[str, Mapping[str, str]], root: Path) -> dict[str, str]:
    """The variables of a function's processes: PATH and its like, and what the manifest asks of ``known``, no more.

    Raises:
        BadManifest: the function wants something that nobody has.
    """
    result = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    result["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    for entry in function.env_from:
        ref: Any = entry.get("configMapRef") or entry["secretRef"]
        if ref["name"] not in known and not ref.get("optional"):
            raise BadManifest(f"{function.name} wants {ref['name']}, which is none of {', '.join(known)}.")
        result |= {entry.get("prefix", "") + name: value for name, value in known.get(ref["name"], {}).items()}
    for entry in function.env:
        source = entry.get("valueFrom", {})
        ref = source.get("secretKeyRef") or source.get("configMapKeyRef") or {}
        value = known.get(ref.get("name"), {}).get(ref.get("key")) if source else str(entry.get("value", ""))
        if value is not None:
            result[entry["name"]] = value
        elif not ref.get("optional"):
            raise BadManifest(f"{function.name} wants {entry['name']} from where there is no value for it: {source}.")
    return result


def seconds(text: str) -> float:
    """Of a duration, ISO 8601's without dates (PT1M30S) or Go's (1m30s); ValueError where it is neither."""
    if not re.fullmatch(r"(PT)?(\d+(\.\d+)?(ms|h|m|s))+", text, re.IGNORECASE):
        raise ValueError(f"{text!r} is not a duration such as PT0.5S or 60s")
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text.lower()))
