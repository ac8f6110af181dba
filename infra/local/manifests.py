"""Reads what a cluster is given, knative/*.yaml, into what this machine has to run."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from events.errors import Mp3burstError
from infra.local.cron import BadSchedule, Schedule, parse

#: On each Service: the path prefixes that lead to it, separated by commas.
PATHS = "mp3burst.dev/paths"
#: A revision without timeoutSeconds or window has Knative's defaults, in seconds.
_TIMEOUT, _WINDOW = 300.0, 60.0
#: containerConcurrency 0 means no limit.
_UNLIMITED = 1 << 20


class BadManifest(Mp3burstError):
    """A manifest does not say what it has to."""


@dataclass(frozen=True, slots=True)
class Function:
    """A Service. Times are in seconds; ``env`` and ``env_from`` are the container's, as in the manifest."""

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


@dataclass(frozen=True, slots=True)
class Sink:
    """Where events go: a function and a path of it."""

    function: str
    path: str = "/"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Which events go where, how many at once, and what follows a failure. ``delay`` is in seconds."""

    name: str
    filter: Mapping[str, str]
    subscriber: Sink
    parallelism: int = 1
    retries: int = 0
    exponential: bool = True
    delay: float = 0.0
    dead_letters: Sink | None = None

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures, at least one."""
        return self.delay * (2 ** (failures - 1) if self.exponential else failures)


@dataclass(frozen=True, slots=True)
class Ping:
    """A PingSource."""

    name: str
    schedule: Schedule
    sink: Sink
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything that was found."""

    functions: Mapping[str, Function]
    triggers: tuple[Trigger, ...]
    pings: tuple[Ping, ...]


def read(directory: Path, cores: int, idle: float | None = None) -> Manifests:
    """Read every document of every ``*.yaml`` in the directory; kinds that mean nothing here are passed over.

    Args:
        directory: where the manifests are.
        cores: a function that takes one request at a time does CPU work: it gets at most this many instances. So does
            one without a max-scale. More would only take turns.
        idle: seconds that take the place of every window.

    Raises:
        BadManifest: there is none, or one that makes no sense.
    """
    documents = [document for path in sorted(directory.glob("*.yaml")) for document in _documents(path)]
    kinds: dict[str, list[dict[str, Any]]] = {"Service": [], "Broker": [], "Trigger": [], "PingSource": []}
    for document in documents:
        if document.get("kind") == "Service" and "serving.knative.dev" not in str(document.get("apiVersion")):
            continue
        kinds.get(str(document.get("kind")), []).append(document)
    if not kinds["Service"]:
        raise BadManifest(f"There is no Knative Service in {directory}: name the directory that has the manifests.")
    functions = {f.name: f for f in (_each(_function, d, cores, idle) for d in kinds["Service"])}
    brokers = {d["metadata"]["name"]: d.get("spec", {}).get("delivery", {}) for d in kinds["Broker"]}
    triggers = tuple(_each(_trigger, d, brokers) for d in kinds["Trigger"])
    pings = tuple(_each(_ping, d) for d in kinds["PingSource"])
    sinks = [s for t in triggers for s in (t.subscriber, t.dead_letters) if s] + [p.sink for p in pings]
    for sink in sinks:
        if sink.function not in functions:
            raise BadManifest(f"The manifests send events to {sink.function}, but there is no such Service.")
    return Manifests(functions, triggers, pings)


def _documents(path: Path) -> Iterable[dict[str, Any]]:
    try:
        return [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        raise BadManifest(f"{path.name} is not YAML: {error}.") from error


def _each(make: Any, document: Mapping[str, Any], *more: Any) -> Any:
    try:
        return make(document, *more)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, BadSchedule) as error:
        name = (document.get("metadata") or {}).get("name")
        raise BadManifest(f"The {document.get('kind')} {name} is incomplete or wrong: {error!r}.") from error


def _function(document: Mapping[str, Any], cores: int, idle: float | None) -> Function:
    metadata, template = document["metadata"], document["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    scale = (template.get("metadata") or {}).get("annotations") or {}
    paths = (metadata.get("annotations") or {}).get(PATHS, "")
    concurrency = int(spec.get("containerConcurrency") or _UNLIMITED)
    most = int(scale.get("autoscaling.knative.dev/max-scale", 0)) or cores
    window = scale.get("autoscaling.knative.dev/window")
    return Function(
        name=metadata["name"],
        paths=tuple(path.strip() for path in paths.split(",") if path.strip()),
        public=(metadata.get("labels") or {}).get("networking.knative.dev/visibility") != "cluster-local",
        concurrency=concurrency,
        min_scale=int(scale.get("autoscaling.knative.dev/min-scale", 0)),
        max_scale=min(most, cores) if concurrency == 1 else most,
        window=idle if idle is not None else go_duration(window) if window else _WINDOW,
        timeout=float(spec.get("timeoutSeconds") or _TIMEOUT),
        env=tuple(container.get("env") or ()),
        env_from=tuple(container.get("envFrom") or ()),
    )


def _trigger(document: Mapping[str, Any], brokers: Mapping[str, Mapping[str, Any]]) -> Trigger:
    metadata, spec = document["metadata"], document["spec"]
    delivery = {**brokers.get(spec["broker"], {}), **(spec.get("delivery") or {})}
    parallelism = (metadata.get("annotations") or {}).get("rabbitmq.eventing.knative.dev/parallelism", 1)
    return Trigger(
        name=metadata["name"],
        filter=dict((spec.get("filter") or {}).get("attributes") or {}),
        subscriber=_sink(spec["subscriber"]),
        parallelism=int(parallelism),
        retries=int(delivery.get("retry", 0)),
        exponential=delivery.get("backoffPolicy", "exponential") == "exponential",
        delay=iso_duration(delivery.get("backoffDelay", "PT0S")),
        dead_letters=_sink(delivery["deadLetterSink"]) if delivery.get("deadLetterSink") else None,
    )


def _ping(document: Mapping[str, Any]) -> Ping:
    spec = document["spec"]
    return Ping(
        name=document["metadata"]["name"],
        schedule=parse(spec["schedule"]),
        sink=_sink(spec["sink"]),
        content_type=spec.get("contentType", "application/json"),
        data=str(spec.get("data", "")).encode(),
    )


def _sink(spec: Mapping[str, Any]) -> Sink:
    # With a ref, uri is a path; alone it is the function's address in the cluster.
    if ref := spec.get("ref"):
        return Sink(ref["name"], spec.get("uri") or "/")
    match = re.fullmatch(r"https?://([^./:]+)[^/]*\.svc[^/]*(/.*)?", spec["uri"])
    if not match:
        raise ValueError(f"{spec['uri']} is not the address of a function")
    return Sink(match[1], match[2] or "/")


def iso_duration(text: str) -> float:
    """Seconds of an ISO 8601 duration without dates, such as PT0.5S or PT1M30S."""
    match = re.fullmatch(r"PT(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration such as PT0.5S")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def go_duration(text: str) -> float:
    """Seconds of a Go duration, such as 6s or 1m30s."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|h|m|s))+", text):
        raise ValueError(f"{text!r} is not a duration such as 60s")
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))
