from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.local.manifests import BadManifest, Manifests, Sink, Trigger, read, seconds
from tests.support.paths import ROOT


def service(**changes: Any) -> dict[str, Any]:
    spec = {"containers": [{"image": "i"}], **changes.pop("spec", {})}
    template = {"metadata": {"annotations": changes.pop("scaling", {})}, "spec": spec}
    metadata = {"name": "f", **changes.pop("metadata", {})}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"template": template},
    }


def trigger(**spec: Any) -> dict[str, Any]:
    spec = {"broker": "b", "subscriber": {"ref": {"name": "f"}}, **spec}
    return {"apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": "t"}, "spec": spec}


def broker(**delivery: Any) -> dict[str, Any]:
    spec = {"delivery": delivery}
    return {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "b"}, "spec": spec}


def load(directory: Path, *documents: Any, cpus: int = 4, idle: float | None = None) -> Manifests:
    (directory / "all.yaml").write_text(yaml.safe_dump_all(documents))
    return read(directory, cpus, idle)


def test_our_manifests_are_complete() -> None:
    functions, triggers, pings = read(ROOT / "knative", 2)
    public = {name for name, function in functions.items() if function.public}
    accounts = {"login", "register", "confirm", "account", "webhooks", "admin", "metrics", "validate"}
    assert public == accounts | {"upload", "status", "download", "edit"}
    assert all(functions[name].paths for name in public)
    assert functions.keys() - public == {"fetch", "convert", "encode", "join", "notify", "hook", "sweep", "bury"}
    assert {trigger.dead_letters for trigger in triggers} == {Sink("bury", "/")}
    assert all(trigger.retries >= 3 and trigger.exponential for trigger in triggers)
    assert [ping.sink.function for ping in pings] == ["sweep"]
    for name, function in functions.items():
        variables = {entry["name"]: entry["value"] for entry in function.container["env"]}
        assert (ROOT / variables["FUNCTION_SOURCE"]).parent.is_dir()
        assert variables["FUNCTION_TARGET"] == name
        assert int(variables["THREADS"]) >= function.concurrency
        assert float(variables["TIMEOUT_SECONDS"]) == function.timeout
        assert function.container["securityContext"]["runAsNonRoot"] is True


def test_places_are_the_target_of_the_autoscaler(tmp_path: Path) -> None:
    document = service(spec={"containerConcurrency": 100}, scaling={"autoscaling.knative.dev/target": "8"})
    assert load(tmp_path, document).functions["f"].concurrency == 8


def test_defaults_are_those_of_knative(tmp_path: Path) -> None:
    function = load(tmp_path, service(), cpus=3).functions["f"]
    assert (function.timeout, function.window, function.min_scale) == (300, 60, 0)
    assert function.concurrency > 1000
    assert function.max_scale == 3
    assert function.public
    assert function.paths == []


@pytest.mark.parametrize(
    ("concurrency", "max_scale", "expected"), [(1, "10", 4), (1, "1", 1), (2, "10", 10), (1, "0", 2)]
)
def test_cpu_work_is_limited_to_twice_the_cpus(tmp_path: Path, concurrency: int, max_scale: str, expected: int) -> None:
    document = service(
        spec={"containerConcurrency": concurrency}, scaling={"autoscaling.knative.dev/max-scale": max_scale}
    )
    function = load(tmp_path, document, cpus=2).functions["f"]
    assert function.max_scale == expected
    assert function.places == concurrency * expected


def test_idle_overrides_every_window(tmp_path: Path) -> None:
    document = service(scaling={"autoscaling.knative.dev/window": "6s"})
    assert load(tmp_path, document).functions["f"].window == 6
    assert load(tmp_path, document, idle=1.5).functions["f"].window == 1.5


def test_paths_come_from_the_annotation(tmp_path: Path) -> None:
    document = service(metadata={"annotations": {"mp3burst.dev/paths": "/a, /b/"}})
    assert load(tmp_path, document).functions["f"].paths == ["/a", "/b"]


def test_trigger_inherits_and_overrides_the_brokers_delivery(tmp_path: Path) -> None:
    sink = {"ref": {"name": "f"}, "uri": "/dead"}
    broker_ = broker(retry=3, backoffDelay="PT0.5S", backoffPolicy="linear", deadLetterSink=sink)
    own = trigger(delivery={"retry": 7}, filter={"attributes": {"type": "x"}})
    [read_] = load(tmp_path, service(), broker_, own).triggers
    assert read_ == Trigger("t", {"type": "x"}, Sink("f", "/"), 1, 7, False, 0.5, Sink("f", "/dead"))


def test_without_delivery_settings_nothing_is_retried(tmp_path: Path) -> None:
    [read_] = load(tmp_path, service(), trigger()).triggers
    assert (read_.retries, read_.dead_letters, read_.filter) == (0, None, {})


def test_backoff_grows_as_on_knative() -> None:
    exponential = Trigger("t", {}, Sink("f", "/"), 1, 5, True, 0.5, None)
    assert [exponential.backoff(n) for n in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert [exponential._replace(exponential=False).backoff(n) for n in (1, 2, 3)] == [0.5, 1, 1.5]


def test_ping_accepts_a_functions_address(tmp_path: Path) -> None:
    spec = {"schedule": "* * * * *", "sink": {"uri": "http://f.ns.svc.cluster.local/now"}}
    source = {"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "metadata": {"name": "p"}, "spec": spec}
    [ping] = load(tmp_path, service(), source).pings
    assert ping.sink == Sink("f", "/now")
    spec["sink"] = {"uri": "https://example.org/"}
    with pytest.raises(BadManifest, match="PingSource p is incomplete or invalid"):
        load(tmp_path, service(), source)
    spec |= {"sink": {"ref": {"name": "f"}}, "schedule": "61 * * * *"}
    with pytest.raises(BadManifest, match="PingSource p is incomplete or invalid"):
        load(tmp_path, service(), source)


def test_other_kinds_are_ignored(tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "rabbitmq"}, "spec": {}}
    assert list(load(tmp_path, None, other, service()).functions) == ["f"]


def test_invalid_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match="no Knative Service"):
        load(tmp_path)
    with pytest.raises(BadManifest, match="The Service f is incomplete"):
        load(tmp_path, service(spec={"containers": []}))
    with pytest.raises(BadManifest, match="send events to nobody"):
        load(tmp_path, service(), trigger(subscriber={"ref": {"name": "nobody"}}))
    (tmp_path / "all.yaml").write_text("a: [")
    with pytest.raises(BadManifest, match=r"all\.yaml is not a manifest"):
        read(tmp_path, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("PT0.5S", 0.5), ("PT1M30S", 90), ("PT2H", 7200), ("6s", 6), ("1m30s", 90), ("250ms", 0.25), ("PT0S", 0)],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "PT", "5", "P1D", "1d", "-1s"])
def test_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)
