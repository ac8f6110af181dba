"""What ./scripts/deploy gives a cluster: manifests whose numbers fit together, and images named by what is in them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.deployment import images, manifests

ROOT = Path(__file__).parents[2]
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: One request at a time, since it is CPU work, or since two would do the same.
ALONE = {"convert", "encode", "sweep"}


def documents() -> Iterator[dict[str, Any]]:
    for path in [*(ROOT / "knative").glob("*.yaml"), ROOT / "knative/gateway/gateway.yaml"]:
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


SERVICES = {each["metadata"]["name"]: each for each in documents() if manifests.is_function(each)}
TRIGGERS = [each for each in documents() if each["kind"] == "Trigger"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_sleeps_is_limited_and_has_no_rights(name: str) -> None:
    template = SERVICES[name]["spec"]["template"]
    annotations, spec = template["metadata"]["annotations"], template["spec"]
    (container,) = spec["containers"]
    scaling = {key.partition("/")[2]: value for key, value in annotations.items()}

    assert scaling["class"] == "kpa.autoscaling.knative.dev"
    assert (scaling["min-scale"], int(scaling["max-scale"]) > 0) == ("0", True)
    # With less Knative would start more pods than there are requests.
    assert scaling["target-utilization-percentage"] == ("100" if name in ALONE else "70")
    assert (spec["containerConcurrency"] == 1) == (name in ALONE)
    assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
    # What Knative gives without a change of its settings.
    assert spec["timeoutSeconds"] <= 600
    assert container["securityContext"] == RESTRICTED
    assert container["readinessProbe"] == {"tcpSocket": {"port": 8080}}
    assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
    env = {each["name"]: each["value"] for each in container["env"]}
    if name != "gateway":
        assert int(env["TIMEOUT_SECONDS"]) == spec["timeoutSeconds"]
        assert int(env["THREADS"]) >= spec["containerConcurrency"]


def test_only_what_users_call_can_be_reached_from_outside() -> None:
    public = {
        name
        for name, each in SERVICES.items()
        if each["metadata"]["labels"].get("networking.knative.dev/visibility") != "cluster-local"
    }
    assert public == {"register", "login", "validate", "upload", "status", "download", "gateway"}


def test_as_many_events_are_delivered_at_once_as_pods_can_take() -> None:
    shares: dict[str, list[int]] = {}
    for each in TRIGGERS:
        parallelism = each["metadata"]["annotations"]["rabbitmq.eventing.knative.dev/parallelism"]
        shares.setdefault(each["spec"]["subscriber"]["ref"]["name"], []).append(int(parallelism))
    assert shares.keys() == {"convert", "encode", "join", "notify"}
    for name, parallel in shares.items():
        template = SERVICES[name]["spec"]["template"]
        most = int(template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"])
        assert sum(parallel) == most * template["spec"]["containerConcurrency"], name


def test_the_broker_tries_again_and_buries() -> None:
    (broker,) = (each for each in documents() if each["kind"] == "Broker")
    assert broker["metadata"]["annotations"]["eventing.knative.dev/broker.class"] == "RabbitMQBroker"
    delivery = broker["spec"]["delivery"]
    assert delivery["retry"] >= 3
    assert delivery["backoffPolicy"] == "exponential"
    assert delivery["deadLetterSink"]["ref"]["name"] == "bury"
    assert broker["spec"]["config"]["kind"] == "RabbitmqBrokerConfig"


def test_the_gateway_calls_functions_by_their_names_in_the_cluster() -> None:
    (container,) = SERVICES["gateway"]["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    upstreams = {name.removesuffix("_UPSTREAM").lower(): value for name, value in env.items() if "_UPSTREAM" in name}
    assert upstreams == {
        name: f"{name}.mp3burst.svc.cluster.local"
        for name in ("register", "login", "validate", "upload", "status", "download")
    }


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A copy of what images are made of; the function changes a file of it."""
    for path in [*images._files("login"), *images._files("validate"), *images._files("gateway")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(images, "ROOT", tmp_path)

    def change(name: str) -> None:
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")

    return change


def test_a_tag_changes_with_what_is_in_the_image_alone(source: Callable[[str], None]) -> None:
    def tags() -> list[str]:
        return [images.tag(name) for name in ("login", "validate", "gateway")]

    login, validate, gateway = tags()
    assert tags() == [login, validate, gateway]
    source("functions/login/main.py")
    assert tags() == [login2 := images.tag("login"), validate, gateway]
    assert login2 != login
    source("functions/tokens.py")
    assert images.tag("login") != login2
    assert images.tag("validate") != validate
    source("functions/gateway/nginx.conf")
    assert images.tag("gateway") != gateway


def test_a_change_of_settings_makes_new_revisions_of_those_that_read_them() -> None:
    services = list(SERVICES.values())

    def digests(**stamps: str) -> dict[str, str]:
        made = manifests.filled(services, {"login": "registry/login:1"}, stamps)
        key = "mp3burst.dev/settings"
        return {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["annotations"][key] for each in made}

    before, after = digests(mail="1", database="1"), digests(mail="2", database="1")
    assert {name for name in before if before[name] != after[name]} == {"notify"}


def test_our_images_take_the_names_that_they_were_built_under() -> None:
    (filled,) = manifests.filled([SERVICES["encode"]], {"convert": "registry/convert:1"}, {})
    (container,) = filled["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/convert:1"
    assert SERVICES["encode"]["spec"]["template"]["spec"]["containers"][0]["image"] == "mp3burst/convert:latest"
    assert manifests.images(SERVICES.values()) == {
        *("register", "login", "validate", "upload", "status", "download", "convert", "notify", "sweep", "gateway")
    }
