"""Reads what a cluster is given, knative/*.yaml, into what this machine has to run. Durations are in seconds."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from events.errors import Mp3burstError
from infra.local import cron

#: containerConcurrency 0 means no limit.
_UNLIMITED = 1 << 20

T = TypeVar("T")


class BadManifest(Mp3burstError):
    """A manifest does not say what it has to."""


class Function(NamedTuple):
    """A Service; ``container`` is as in the manifest."""

    name: str
    paths: list[str]
    public: bool
    concurrency: int
    min_scale: int
    max_scale: int
    window: float
    timeout: float
    container: Mapping[str, Any]


class Sink(NamedTuple):
    """Where events go: a function and a path of it."""

    function: str
    path: str


class Trigger(NamedTuple):
    """Which events go where, how many at once, and what follows a failure."""

    name: str
    filter: Mapping[str, str]
    subscriber: Sink
    parallelism: int
    retries: int
    exponential: bool
    delay: float
    dead_letters: Sink | None

    def backoff(self, failures: int) -> float:
        """How long to wait after the first, second, ... failure."""
        return self.delay * (2 ** (failures - 1) if self.exponential else failures)


class Ping(NamedTuple):
    """A PingSource."""

    name: str
    schedule: str
    sink: Sink
    content_type: str
    data: bytes


class Manifests(NamedTuple):
    """Everything that was found."""

    functions: dict[str, Function]
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
        except (LookupError, TypeError, ValueError, AttributeError, cron.BadSchedule) as error:
            name = (document.get("metadata") or {}).get("name")
            raise BadManifest(f"The {document['kind']} {name} is incomplete or wrong: {error!r}.") from error
    return made


def _function(document: Any, cores: int, idle: float | None) -> Function:
    metadata, template = document["metadata"], document["spec"]["template"]
    annotations = {**metadata.get("annotations", {}), **template.get("metadata", {}).get("annotations", {})}
    concurrency = template["spec"].get("containerConcurrency") or _UNLIMITED
    most = int(annotations.get("autoscaling.knative.dev/max-scale", 0)) or cores
    return Function(
        name=metadata["name"],
        paths=[path.strip().rstrip("/") for path in annotations.get("mp3burst.dev/paths", "").split(",") if path],
        public=metadata.get("labels", {}).get("networking.knative.dev/visibility") != "cluster-local",
        concurrency=concurrency,
        min_scale=int(annotations.get("autoscaling.knative.dev/min-scale", 0)),
        max_scale=min(most, cores) if concurrency == 1 else most,
        window=seconds(annotations.get("autoscaling.knative.dev/window", "60s")) if idle is None else idle,
        timeout=float(template["spec"].get("timeoutSeconds", 300)),
        container=template["spec"]["containers"][0],
    )


def _trigger(document: Any, brokers: Mapping[str, Mapping[str, Any]]) -> Trigger:
    metadata, spec = document["metadata"], document["spec"]
    delivery = {**brokers.get(spec["broker"], {}), **spec.get("delivery", {})}
    parallelism = metadata.get("annotations", {}).get("rabbitmq.eventing.knative.dev/parallelism", 1)
    return Trigger(
        name=metadata["name"],
        filter=spec.get("filter", {}).get("attributes", {}),
        subscriber=_sink(spec["subscriber"]),
        parallelism=int(parallelism),
        retries=int(delivery.get("retry", 0)),
        exponential=delivery.get("backoffPolicy", "exponential") == "exponential",
        delay=seconds(delivery.get("backoffDelay", "PT0S")),
        dead_letters=_sink(delivery["deadLetterSink"]) if "deadLetterSink" in delivery else None,
    )


def _ping(document: Any) -> Ping:
    spec, name = document["spec"], document["metadata"]["name"]
    cron.following(spec["schedule"], datetime.now(UTC))
    content_type, data = spec.get("contentType", "application/json"), spec.get("data", "").encode()
    return Ping(name, spec["schedule"], _sink(spec["sink"]), content_type, data)


def _sink(spec: Any) -> Sink:
    # Beside a ref, uri is a path; alone it is the function's address in the cluster.
    if "ref" in spec:
        return Sink(spec["ref"]["name"], spec.get("uri", "/"))
    match = re.fullmatch(r"https?://([^./:]+)[^/]*\.svc[^/]*(/.*)?", spec["uri"])
    if not match:
        raise ValueError(f"{spec['uri']} is not the address of a function")
    return Sink(match[1], match[2] or "/")


def seconds(text: str) -> float:
    """Of a duration, ISO 8601's without dates (PT1M30S) or Go's (1m30s); ValueError where it is neither."""
    if not re.fullmatch(r"(PT)?(\d+(\.\d+)?(ms|h|m|s))+", text, re.IGNORECASE):
        raise ValueError(f"{text!r} is not a duration such as PT0.5S or 60s")
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text.lower()))
