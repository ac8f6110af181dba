"""Reads a cluster's manifests, knative/*.yaml, into what this machine has to run. Durations are in seconds."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from events.errors import Mp3burstError
from infra.local import cron

#: Bytes of a body that is received before an instance takes the request, unless the function's variable says otherwise.
BUFFERED_BODY_BYTES = 64 << 10
#: containerConcurrency 0 means no limit.
_UNLIMITED = 1 << 20

T = TypeVar("T")


class BadManifest(Mp3burstError):
    """A manifest is invalid or incomplete."""


class Function(NamedTuple):
    """A Service. ``container`` is the manifest's, unparsed; ``buffered_body`` its BUFFERED_BODY_BYTES."""

    name: str
    paths: list[str]
    public: bool
    concurrency: int
    min_scale: int
    max_scale: int
    window: float
    timeout: float
    container: Mapping[str, Any]
    buffered_body: int = BUFFERED_BODY_BYTES

    @property
    def places(self) -> int:
        """Returns how many requests all its instances handle at once."""
        return self.max_scale * self.concurrency


class Sink(NamedTuple):
    """The destination of events: a function and a path of it."""

    function: str
    path: str


class Trigger(NamedTuple):
    """Selects events for a function, and says how many run at once and how failures are retried."""

    name: str
    filter: Mapping[str, str]
    subscriber: Sink
    parallelism: int
    retries: int
    exponential: bool
    delay: float
    dead_letters: Sink | None

    def backoff(self, failures: int) -> float:
        """Returns the seconds to wait after the first, second, ... failure."""
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


def read(directory: Path, cpus: int, idle: float | None = None) -> Manifests:
    """Reads every document of every ``*.yaml``, ignoring other kinds.

    Args:
        directory: where the manifests are.
        cpus: the max-scale of a function without one. One that takes one request at a time gets twice as many instances
            at most: such requests are CPU work, and a user alone gets half of them.
        idle: overrides every window.

    Raises:
        BadManifest: no manifest was found, or one is invalid.
    """
    kinds: dict[str, list[Any]] = {kind: [] for kind in ("Service", "Broker", "Trigger", "PingSource")}
    for path in sorted(directory.glob("*.yaml")):
        try:
            for document in yaml.safe_load_all(path.read_text()):
                if document and ".knative.dev/" in document.get("apiVersion", "") and document["kind"] in kinds:
                    kinds[document["kind"]].append(document)
        except (yaml.YAMLError, AttributeError, KeyError) as error:
            raise BadManifest(f"{path.name} is not a manifest: {error}.") from error
    functions = {f.name: f for f in _parse_each(kinds["Service"], lambda document: _function(document, cpus, idle))}
    brokers = dict(_parse_each(kinds["Broker"], _broker))
    triggers = _parse_each(kinds["Trigger"], lambda document: _trigger(document, brokers))
    pings = _parse_each(kinds["PingSource"], _ping)
    if not functions:
        raise BadManifest(f"There is no Knative Service in {directory}: choose the directory with the manifests.")
    sinks = [ping.sink for ping in pings]
    for trigger in triggers:
        sinks += filter(None, (trigger.subscriber, trigger.dead_letters))
    for sink in sinks:
        if sink.function not in functions:
            raise BadManifest(f"The manifests send events to {sink.function}, but there is no such Service.")
    return Manifests(functions, triggers, pings)


def _parse_each(documents: list[Any], parse: Callable[[Any], T]) -> list[T]:
    parsed = []
    for document in documents:
        try:
            parsed.append(parse(document))
        except (LookupError, TypeError, ValueError, AttributeError, cron.BadSchedule) as error:
            name = (document.get("metadata") or {}).get("name")
            raise BadManifest(f"The {document['kind']} {name} is incomplete or invalid: {error!r}.") from error
    return parsed


def _function(document: Any, cpus: int, idle: float | None) -> Function:
    metadata = document["metadata"]
    template = document["spec"]["template"]
    annotations = {**metadata.get("annotations", {}), **template.get("metadata", {}).get("annotations", {})}
    # The target, if there is one: containerConcurrency leaves room for slow requests, and this ingress keeps those.
    target = int(annotations.get("autoscaling.knative.dev/target", 0))
    concurrency = target or template["spec"].get("containerConcurrency") or _UNLIMITED
    container = template["spec"]["containers"][0]
    variables = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
    max_scale = int(annotations.get("autoscaling.knative.dev/max-scale", 0)) or cpus
    return Function(
        name=metadata["name"],
        paths=[path.strip().rstrip("/") for path in annotations.get("mp3burst.dev/paths", "").split(",") if path],
        public=metadata.get("labels", {}).get("networking.knative.dev/visibility") != "cluster-local",
        concurrency=concurrency,
        min_scale=int(annotations.get("autoscaling.knative.dev/min-scale", 0)),
        max_scale=min(max_scale, 2 * cpus) if concurrency == 1 else max_scale,
        window=seconds(annotations.get("autoscaling.knative.dev/window", "60s")) if idle is None else idle,
        timeout=float(template["spec"].get("timeoutSeconds", 300)),
        container=container,
        buffered_body=int(variables.get("BUFFERED_BODY_BYTES", BUFFERED_BODY_BYTES)),
    )


def _broker(document: Any) -> tuple[str, Mapping[str, Any]]:
    # Its name, and the delivery settings that Triggers inherit.
    return document["metadata"]["name"], document.get("spec", {}).get("delivery", {})


def _trigger(document: Any, brokers: Mapping[str, Mapping[str, Any]]) -> Trigger:
    metadata = document["metadata"]
    spec = document["spec"]
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
    spec = document["spec"]
    cron.next_time(spec["schedule"], datetime.now(UTC))
    return Ping(
        name=document["metadata"]["name"],
        schedule=spec["schedule"],
        sink=_sink(spec["sink"]),
        content_type=spec.get("contentType", "application/json"),
        data=spec.get("data", "").encode(),
    )


def _sink(spec: Any) -> Sink:
    # Next to a ref, uri is a path; alone it is the function's address in the cluster.
    if "ref" in spec:
        return Sink(spec["ref"]["name"], spec.get("uri", "/"))
    match = re.fullmatch(r"https?://([^./:]+)[^/]*\.svc[^/]*(/.*)?", spec["uri"])
    if not match:
        raise ValueError(f"{spec['uri']} is not the address of a function")
    return Sink(match[1], match[2] or "/")


def seconds(text: str) -> float:
    """Parses a duration, in ISO 8601 format without dates (PT1M30S) or in Go's (1m30s).

    Raises:
        ValueError: it is neither.
    """
    if not re.fullmatch(r"(PT)?(\d+(\.\d+)?(ms|h|m|s))+", text, re.IGNORECASE):
        raise ValueError(f"{text!r} is not a duration such as PT0.5S or 60s")
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text.lower()))
