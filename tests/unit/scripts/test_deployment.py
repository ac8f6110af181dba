"""Tests ./scripts/deploy: manifests with consistent numbers, and images named by their contents."""

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

import infra.config
from functions.notify.transports import Smtp, mailer
from infra.config import VARIABLES
from infra.migrations import rights
from infra.migrations.rights import RIGHTS
from scripts.deployment import images, manifests, rollout, settings
from scripts.deployment.__main__ import main
from scripts.deployment.cluster import CannotDeploy, Cluster
from tests.support.paths import ROOT
from tests.support.processes import shell_program

RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: One request at a time: it is CPU work, or two would do the same.
ONE_AT_A_TIME = {"convert", "encode", "sweep"}


def documents() -> Iterator[dict[str, Any]]:
    for path in [*(ROOT / "knative").glob("*.yaml"), ROOT / "knative/gateway/gateway.yaml"]:
        if path.name != "kustomization.yaml":
            yield from yaml.safe_load_all(path.read_text())


SERVICES = {each["metadata"]["name"]: each for each in documents() if manifests.is_function(each)}
TRIGGERS = [each for each in documents() if each["kind"] == "Trigger"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_scales_to_zero_and_has_limits_and_no_privileges(name: str) -> None:
    template = SERVICES[name]["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    spec = template["spec"]
    (container,) = spec["containers"]
    scaling = {key.partition("/")[2]: value for key, value in annotations.items()}

    assert scaling["class"] == "kpa.autoscaling.knative.dev"
    assert (scaling["min-scale"], int(scaling["max-scale"]) > 0) == ("0", True)
    # With a lower value Knative would start more pods than there are requests.
    assert scaling["target-utilization-percentage"] == ("100" if name in ONE_AT_A_TIME else "70")
    assert (spec["containerConcurrency"] == 1) == (name in ONE_AT_A_TIME)
    assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
    # The maximum with the default settings of Knative.
    assert spec["timeoutSeconds"] <= 600
    assert container["securityContext"] == RESTRICTED
    assert container["readinessProbe"] == {"tcpSocket": {"port": 8080}}
    assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
    env = {each["name"]: each["value"] for each in container["env"]}
    if name != "gateway":
        assert int(env["TIMEOUT_SECONDS"]) == spec["timeoutSeconds"]
        assert int(env["THREADS"]) >= int(scaling.get("target", spec["containerConcurrency"]))


@pytest.mark.parametrize("name", ["upload", "download"])
def test_a_pod_takes_as_many_transfers_as_its_function(name: str) -> None:
    """More would be refused instead of waiting for a place or another pod."""
    template = SERVICES[name]["spec"]["template"]["spec"]
    [environ] = [{each["name"]: each["value"] for each in one["env"]} for one in template["containers"]]
    assert template["containerConcurrency"] == int(environ["THREADS"]) * 3 // 4


#: The functions that users call.
BEHIND_THE_GATEWAY = (
    "register",
    "login",
    "confirm",
    "account",
    "webhooks",
    "admin",
    "metrics",
    "validate",
    "upload",
    "status",
    "download",
    "edit",
)


def test_only_the_functions_that_users_call_are_public() -> None:
    public = {
        name
        for name, each in SERVICES.items()
        if each["metadata"]["labels"].get("networking.knative.dev/visibility") != "cluster-local"
    }
    assert public == {*BEHIND_THE_GATEWAY, "gateway"}


def test_triggers_deliver_as_many_events_at_once_as_pods_can_handle() -> None:
    shares: dict[str, list[int]] = {}
    for each in TRIGGERS:
        parallelism = each["metadata"]["annotations"]["rabbitmq.eventing.knative.dev/parallelism"]
        shares.setdefault(each["spec"]["subscriber"]["ref"]["name"], []).append(int(parallelism))
    assert shares.keys() == {"fetch", "convert", "encode", "join", "notify", "hook"}
    for name, parallel in shares.items():
        template = SERVICES[name]["spec"]["template"]
        max_scale = int(template["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"])
        places = max_scale * template["spec"]["containerConcurrency"]
        assert sum(parallel) == places, name
        env = {each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
        assert env.get("PLACES") == (None if name in ("notify", "hook") else str(places)), name


def test_the_broker_retries_and_sends_dead_letters_to_bury() -> None:
    (broker,) = (each for each in documents() if each["kind"] == "Broker")
    assert broker["metadata"]["annotations"]["eventing.knative.dev/broker.class"] == "RabbitMQBroker"
    delivery = broker["spec"]["delivery"]
    assert delivery["retry"] >= 3
    assert delivery["backoffPolicy"] == "exponential"
    assert delivery["deadLetterSink"]["ref"]["name"] == "bury"
    assert broker["spec"]["config"]["kind"] == "RabbitmqBrokerConfig"


def test_the_gateway_calls_functions_by_their_cluster_names() -> None:
    (container,) = SERVICES["gateway"]["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    upstreams = {name.removesuffix("_UPSTREAM").lower(): value for name, value in env.items() if "_UPSTREAM" in name}
    assert upstreams == {name: f"{name}.mp3burst.svc.cluster.local" for name in BEHIND_THE_GATEWAY}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A copy of the files of images, and a function that changes one of them."""
    for path in [*images._files("login"), *images._files("validate"), *images._files("gateway")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(images, "ROOT", tmp_path)

    def change(name: str) -> None:
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")

    return change


def test_a_tag_changes_only_with_the_contents_of_the_image(source: Callable[[str], None]) -> None:
    def tags() -> list[str]:
        return [images.tag(name) for name in ("login", "validate", "gateway")]

    login, validate, gateway = tags()
    assert tags() == [login, validate, gateway]
    source("functions/login/main.py")
    assert tags() == [login2 := images.tag("login"), validate, gateway]
    assert login2 != login
    source("functions/auth/tokens.py")
    assert images.tag("login") != login2
    assert images.tag("validate") != validate
    source("functions/gateway/nginx.conf")
    assert images.tag("gateway") != gateway
    gateway = images.tag("gateway")
    source("functions/gateway/site/src/i18n/de.ts")
    assert images.tag("gateway") != gateway


def test_changed_settings_start_new_revisions_of_the_functions_that_read_them() -> None:
    services = list(SERVICES.values())

    def digests(**stamps: str) -> dict[str, str]:
        made = manifests.filled(services, {"login": "registry/login:1"}, stamps)
        key = "mp3burst.dev/settings"
        return {each["metadata"]["name"]: each["spec"]["template"]["metadata"]["annotations"][key] for each in made}

    before = digests(mail="1", database="1")
    after = digests(mail="2", database="1")
    assert {name for name in before if before[name] != after[name]} == {"notify"}


def test_manifests_get_the_full_names_of_our_images() -> None:
    (filled,) = manifests.filled([SERVICES["encode"]], {"convert": "registry/convert:1"}, {})
    (container,) = filled["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/convert:1"
    assert SERVICES["encode"]["spec"]["template"]["spec"]["containers"][0]["image"] == "mp3burst/convert:latest"
    assert manifests.images(SERVICES.values()) == {
        *("register", "login", "confirm", "account", "webhooks", "admin", "metrics"),
        *("validate", "upload", "status", "download", "edit"),
        *("fetch", "convert", "notify", "hook", "sweep", "gateway"),
    }


def test_only_the_chosen_functions_and_their_triggers_are_deployed() -> None:
    everything = [*documents()]
    chosen = manifests.of_functions(everything, ["notify", "login"])
    assert {(each["kind"], each["metadata"]["name"]) for each in chosen} == {
        *(("Service", "notify"), ("Service", "login")),
        *(("Trigger", f"notify-{event}") for event in ("ready", "failed", "forgotten", "unconfirmed")),
    }
    sweep = [*yaml.safe_load_all((ROOT / "infra/cronjob/sweep.yaml").read_text())]
    assert [each["kind"] for each in manifests.of_functions(sweep, ["sweep"])] == ["CronJob"]
    with pytest.raises(CannotDeploy, match="No function is called converter, sink: the files of knative/"):
        manifests.of_functions(everything, ["sink", "login", "converter"])


@pytest.mark.parametrize("arguments", [["--only", ""], ["--only", "hook", "--delete"]])
def test_nothing_else_is_done_by_a_wrong_only(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECTL", "false")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_one_function_is_deployed_only_beside_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    failed = {"conditions": [{"type": "Failed", "status": "True"}]}

    def deployable(status: dict[str, Any]) -> bool:
        job = manifests.migrations("image", "stamp", "0123456789ab") | {"status": status}
        cluster = FakeCluster()
        monkeypatch.setattr(cluster, "get", lambda _kind, _, label: [job] if label in labels(job) else [])
        return rollout.has_tables(cluster, "0123456789ab") and not rollout.has_tables(cluster, "another")

    def labels(job: dict[str, Any]) -> list[str]:
        return [f"{name}={value}" for name, value in job["metadata"]["labels"].items()]

    assert deployable(done)
    assert not deployable(failed)


def test_only_what_was_deployed_has_to_become_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str, ready: str) -> dict[str, Any]:
        status = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready, "message": "no image"}]}
        return {"kind": "Service", "metadata": {"name": name, "generation": 1}, "status": status}

    def wait_for_services(**ready: str) -> None:
        cluster = FakeCluster()
        monkeypatch.setattr(cluster, "get", lambda _: [found(name, state) for name, state in ready.items()])
        rollout.await_ready(cluster, [SERVICES["status"]], 0)

    wait_for_services(status="True", notify="False")
    with pytest.raises(CannotDeploy, match="Service status: no image"):
        wait_for_services(status="False", notify="True")
    with pytest.raises(CannotDeploy, match="Service status: not there yet"):
        wait_for_services(notify="True")


def test_cronjob_of_sweep_is_its_service_without_a_server() -> None:
    (job,) = (
        each
        for each in yaml.safe_load_all((ROOT / "infra/cronjob/sweep.yaml").read_text())
        if each["kind"] == "CronJob"
    )
    (source,) = (each for each in documents() if each["kind"] == "PingSource")
    assert job["spec"]["schedule"] == source["spec"]["schedule"]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    served = SERVICES["sweep"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (other,) = served["containers"]
    for key in ("image", "envFrom", "resources", "securityContext", "volumeMounts"):
        assert container[key] == other[key]
    assert container["env"] == [each for each in other["env"] if each["name"] == "K_SINK"]
    for key in ("enableServiceLinks", "automountServiceAccountToken", "volumes"):
        assert pod[key] == served[key]
    assert manifests.images([job]) == {"sweep"}
    (filled,) = manifests.filled([job], {"sweep": "registry/sweep:1"}, {})
    (container,) = filled["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/sweep:1"


def test_overview_runs_only_on_demand_and_may_delete_nothing() -> None:
    (job,) = (
        each
        for each in yaml.safe_load_all((ROOT / "infra/cronjob/overview.yaml").read_text())
        if each["kind"] == "CronJob"
    )
    assert job["spec"]["suspend"] is True
    assert manifests.images([job]) == {"sweep"}
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (secret,) = (each["secretRef"]["name"] for each in container["envFrom"])
    # bury counts dead letters.
    rights = {table: each for table, each in RIGHTS[secret.removeprefix("database-")].items() if table != "counters"}
    assert not any("DELETE" in each or "INSERT" in each for each in rights.values())


def deployed_object(kind: str, name: str, target: str = "", part_of: str = "") -> dict[str, Any]:
    groups = {"Service": "serving.knative.dev", "Trigger": "eventing.knative.dev", "PingSource": "sources.knative.dev"}
    metadata = {"name": name, "labels": {"app.kubernetes.io/part-of": part_of} if part_of else {"team": "other"}}
    call = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": target}}
    spec = {"sink" if kind == "PingSource" else "subscriber": call} if target else {}
    return {"apiVersion": f"{groups[kind]}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def test_only_what_an_earlier_version_has_deployed_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of versions before the label goes before its Service, by which it is known: a run may be killed between."""
    found = [
        deployed_object("Service", "old", part_of="mp3burst"),
        deployed_object("Service", "convert", part_of="mp3burst"),
        deployed_object("Service", "statistics"),
        deployed_object("Trigger", "old", target="old"),
        deployed_object("PingSource", "old", target="old"),
        deployed_object("Trigger", "convert-old", target="convert", part_of="mp3burst"),
        deployed_object("Trigger", "convert", target="convert", part_of="mp3burst"),
        deployed_object("Trigger", "statistics", target="statistics"),
        deployed_object("PingSource", "statistics", target="statistics"),
        deployed_object("Trigger", "anywhere"),
    ]
    cluster = FakeCluster()
    deleted: list[tuple[str, ...]] = []
    monkeypatch.setattr(cluster, "get", lambda _: found)
    monkeypatch.setattr(cluster, "kubectl", lambda *arguments: deleted.append(arguments))
    monkeypatch.setattr(rollout, "apply_only", lambda *_: None)
    rollout.apply(cluster, [found[1], found[6]])
    assert deleted == [
        ("delete", "trigger.eventing.knative.dev", "old"),
        ("delete", "pingsource.sources.knative.dev", "old"),
        ("delete", "trigger.eventing.knative.dev", "convert-old"),
        ("delete", "service.serving.knative.dev", "old"),
    ]


def test_whatever_a_later_version_may_delete_is_labelled() -> None:
    kinds = {"Service", "Trigger", "PingSource"}
    pruned = [each for each in documents() if each["kind"] in kinds]
    assert {each["kind"] for each in pruned} == kinds
    assert [each["metadata"]["name"] for each in pruned if not rollout._is_ours(each)] == []


def test_triggers_of_an_environment_of_ones_own_are_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [deployed_object("Trigger", "encode-0", target="encode"), deployed_object("PingSource", "hourly")]
    del own[1]["metadata"]["labels"]
    others = deployed_object("Service", "statistics")
    cluster = FakeCluster()
    monkeypatch.setattr(cluster, "kubectl", lambda *_: yaml.safe_dump_all([*own, others]))
    *labelled, left = manifests.rendered(cluster, ROOT / "knative")
    assert [rollout._is_ours(each) for each in labelled] == [True, True]
    assert labelled[0]["metadata"]["labels"]["team"] == "other"
    assert left == others


DIGEST = f"sha256:{'d' * 64}"
OTHER = f"sha256:{'0' * 64}"
#: What docker knows of an image that it has pushed to two places.
REPORT = f"""echo '["other/name@{OTHER}", "'"${{5%:*}}"'@{DIGEST}"]'"""
INSPECT = "docker image inspect --format {{json .RepoDigests}} r/login:1"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Replaces PATH with stand-ins for docker, kind and builder; the function returns their calls."""
    log = tmp_path / "calls"
    log.touch()
    (tmp_path / "bin").mkdir()
    for name in ("docker", "kind", "builder"):
        shell_program(tmp_path / "bin" / name, f'echo "{name} $*" >>{log}\n{REPORT}')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name in ("BUILD", "LOAD", "NGINX_IMAGE", "NODE_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    return lambda: log.read_text().splitlines()


@pytest.mark.parametrize(
    ("variables", "name", "calls"),
    [
        (
            {},
            f"r/login:1@{DIGEST}",
            [
                "docker build -f infra/Dockerfile --build-arg FUNCTION=login -t r/login:1 .",
                "docker push r/login:1",
                INSPECT,
            ],
        ),
        (
            {"LOAD": "kind load docker-image"},
            "r/login:1",
            [
                "docker build -f infra/Dockerfile --build-arg FUNCTION=login -t r/login:1 .",
                "kind load docker-image r/login:1",
            ],
        ),
        (
            {"BUILD": "builder image"},
            "r/login:1",
            ["builder image r/login:1 . -- -f infra/Dockerfile --build-arg FUNCTION=login"],
        ),
    ],
)
def test_an_image_is_built_and_delivered_to_the_cluster(
    called: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    name: str,
    calls: list[str],
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert images.Builder().build("login", "r/login:1") == name
    assert called() == calls


def test_podman_says_in_a_file_what_it_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell_program(tmp_path / "podman", f'[ "$1" = build ] || printf {DIGEST} >"$3"')
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("BUILD", "LOAD"):
        monkeypatch.delenv(name, raising=False)
    assert images.Builder().build("login", "r:5000/login:1") == f"r:5000/login:1@{DIGEST}"


@pytest.mark.usefixtures("called")
def test_image_without_a_digest_is_not_deployed(tmp_path: Path) -> None:
    shell_program(tmp_path / "bin/docker", "echo '[]'")
    with pytest.raises(CannotDeploy, match="docker reports no digest of r/login:1"):
        images.Builder().build("login", "r/login:1")


def test_image_that_runs_by_its_digest_is_not_built_again() -> None:
    names = {"login": "r:5000/login:1", "upload": "r:5000/upload:2", "status": "r:5000/status:3"}
    running = [f"r:5000/login:1@{DIGEST}", f"r:5000/upload:1@{DIGEST}", "r:5000/status:3"]
    assert images.in_use(names, running) == {"login": f"r:5000/login:1@{DIGEST}", "status": "r:5000/status:3"}


def test_images_that_are_built_at_once_are_all_delivered(called: Callable[[], list[str]]) -> None:
    names = {name: f"r/{name}:1" for name in ("login", "validate", "upload", "status", "convert")}
    images.Builder().build_all(names)
    assert {call for call in called() if " push " in call} == {f"docker push {image}" for image in names.values()}


@pytest.mark.usefixtures("called")
def test_a_failed_build_ends_the_deployment(tmp_path: Path) -> None:
    shell_program(tmp_path / "bin/docker", "echo no space left >&2\nexit 1")
    with pytest.raises(CannotDeploy, match="no space left"):
        images.Builder().build_all({"login": "r/login:1", "validate": "r/validate:1"})


def encoded(values: dict[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}


class FakeCluster(Cluster):
    """A cluster with these Secrets and servers and nothing else, which nothing may change."""

    def __init__(self, secrets: dict[str, dict[str, str]] | None = None, servers: str = "") -> None:
        self._objects = {
            "secrets": [
                {"metadata": {"name": name}, "data": encoded(values)} for name, values in (secrets or {}).items()
            ],
            "statefulsets": [{"metadata": {"name": name}} for name in servers.split()],
            "configmap/mp3burst": [],
        }

    def get(self, kinds: str, *_: str) -> list[dict[str, Any]]:
        return self._objects[kinds]

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        raise AssertionError(f"kubectl {arguments} {stdin}, {check=}")


WANTED = ["rabbitmq", "mongodb", "postgresql"]
#: What secrets.sh makes for servers in the cluster, and from the addresses of others.
GENERATED = {
    "rabbitmq": {"RABBITMQ_DEFAULT_USER": "mp3burst", "AMQP_URL": "amqp://mp3burst:p@rabbitmq"},
    "mongodb": {"MONGO_PASSWORD": "p"},
    "postgresql": {"POSTGRES_PASSWORD": "p"},
    "media": {"MONGO_URI": "mongodb://mp3burst:p@mongodb/videos"},
    "database-owner": {"DATABASE_URL": "postgresql://mp3burst:p@postgresql/mp3burst"},
}
ELSEWHERE = {
    "rabbitmq": {"AMQP_URL": "amqp://mq.example.org"},
    "media": {"MONGO_URI": "mongodb://mongo.example.org/videos"},
    "database-owner": {"DATABASE_URL": "postgresql://sql.example.org/mp3burst"},
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator has set nothing."""
    for name in {variable for names in VARIABLES.values() for variable in names.split()} | {"AMQP_URL"}:
        monkeypatch.delenv(name, raising=False)


def test_servers_are_installed_unless_their_address_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.servers(FakeCluster(), WANTED) == WANTED
    # Servers that an earlier run installed are updated.
    assert settings.servers(FakeCluster(GENERATED, " ".join(WANTED)), WANTED) == WANTED
    # Addresses that an earlier run was given are used.
    assert settings.servers(FakeCluster(ELSEWHERE), WANTED) == []
    # An older version has recorded them under another name.
    older = {name: values for name, values in ELSEWHERE.items() if name != "database-owner"}
    assert settings.servers(FakeCluster({**older, "database": {"LOG_KEY": "k"}}), WANTED) == []
    monkeypatch.setenv("MONGO_URI", "mongodb://mongo.example.org/videos")
    assert settings.servers(FakeCluster(), WANTED) == ["rabbitmq", "postgresql"]


def test_servers_that_were_deleted_without_their_data_are_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.servers(FakeCluster(GENERATED), WANTED) == WANTED
    mysql = {**GENERATED, "mysql": {"MYSQL_PASSWORD": "p"}}
    del mysql["postgresql"]
    assert settings.servers(FakeCluster(mysql), ["rabbitmq", "mongodb", "mysql"]) == ["rabbitmq", "mongodb", "mysql"]
    monkeypatch.setenv("DATABASE_URL", "postgresql://sql.example.org/mp3burst")
    assert settings.servers(FakeCluster(GENERATED), WANTED) == ["rabbitmq", "mongodb"]


def test_what_the_script_generates_is_known_to_deploy() -> None:
    script = (ROOT / "infra/secrets.sh").read_text()
    assert settings.SERVERS.keys() == settings._GENERATED.keys()
    for name, (secret, key) in settings._GENERATED.items():
        assert f"entry {key} " in script, name
        assert secret == name


class SecretsCluster(Cluster):
    """A cluster that keeps Secrets and the ConfigMap, and has two host names for the gateway beside Knative's."""

    names: tuple[str, ...] = ("gateway.mp3burst.example.org", "mp3.example.org", "other.example.org")

    def __init__(self, secrets: dict[str, dict[str, str]]) -> None:
        self.secrets = secrets

    def get(self, kinds: str, *_: str) -> list[dict[str, Any]]:
        if kinds == "services.serving.knative.dev/gateway":
            return [{"status": {"url": f"http://{name}"}} for name in self.names[:1]]
        if kinds == "domainmappings.serving.knative.dev":
            return [{"metadata": {"name": name}} for name in self.names[1:]]
        if kinds == "secrets":
            names = [name for name in self.secrets if name.startswith("secret/")]
            return [{"metadata": {"name": name.removeprefix("secret/")}, **self.get(name)[0]} for name in names]
        found = self.secrets[kinds]
        return [{"data": encoded(found) if kinds.startswith("secret/") else found}]

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        command, kind, name, *_ = arguments
        assert (command, check) == ("patch", True)
        changed = json.loads(stdin or "")["data"]
        new = {key: value for key, value in changed.items() if value is not None}
        if kind == "secret":
            new = {key: base64.b64decode(value).decode() for key, value in new.items()}
        old = self.secrets[f"{kind}/{name}"]
        self.secrets[f"{kind}/{name}"] = {key: old[key] for key in old if key not in changed} | new
        return ""


def test_another_database_is_passed_to_the_users_of_all_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = {"DATABASE_URL": "postgresql://owner:p@old/d", "DATABASE_USERS_KEY": "k" * 32}
    before = {f"secret/database-{name}": rights.connection_of(name, owner) for name in rights.RIGHTS}
    cluster = SecretsCluster({"secret/database-owner": owner, **before})
    settings._update_databases(cluster)
    assert cluster.secrets == {"secret/database-owner": owner, **before}

    monkeypatch.setenv("MYSQL_HOST", "new")
    monkeypatch.setenv("MYSQL_DB", "d")
    settings._update_databases(cluster)
    assert cluster.secrets.pop("secret/database-owner") == {
        "MYSQL_HOST": "new",
        "MYSQL_DB": "d",
        "DATABASE_USERS_KEY": "k" * 32,
    }
    for name, secret in cluster.secrets.items():
        function = name.removeprefix("secret/database-")
        password = make_url(before[name]["DATABASE_URL"]).password
        assert secret == {
            "MYSQL_HOST": "new",
            "MYSQL_DB": "d",
            "MYSQL_USER": f"d_{function}",
            "MYSQL_PASSWORD": password,
        }


@pytest.mark.parametrize("wanted", [["redis"], ["mysql", "postgresql"]])
def test_unknown_or_conflicting_servers_are_rejected(wanted: list[str]) -> None:
    with pytest.raises(CannotDeploy):
        settings.servers(FakeCluster(), wanted)


def deployed(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, *arguments: str) -> None:
    """Runs ``./scripts/deploy`` up to its first change of this cluster."""
    monkeypatch.setattr("scripts.deployment.__main__.Cluster", lambda: cluster)
    monkeypatch.setattr(cluster, "check", lambda: None)
    assert main(arguments) == 1


def test_without_a_mail_server_nothing_is_created(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.environ", {**os.environ})
    deployed(monkeypatch, FakeCluster())
    assert "--mail catcher" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="kustomize"):  # the catcher is enough to go on
        deployed(monkeypatch, FakeCluster(), "--mail", "catcher")


def test_catcher_delivers_no_mail_whatever_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"SENDGRID_API_KEY": "k", "SMTP_HOST": "smtp.example.org", "SMTP_USER": "me", "SMTP_PASSWORD": "p"}
    monkeypatch.setattr("os.environ", {**os.environ, **given, "GMAIL_ADDRESS": "me", "GMAIL_PASSWORD": "p"})
    with pytest.raises(AssertionError, match="kustomize"):
        deployed(monkeypatch, FakeCluster(), "--mail", "catcher")
    mails = {name: os.environ[name] for name in VARIABLES["mail"].split() if name in os.environ}
    assert isinstance(mailer(mails), Smtp)
    assert mails == {
        "MAIL_FROM": "mp3burst <mp3burst@localhost>",
        "SMTP_HOST": "mail",
        "SMTP_PORT": "1025",
        "SMTP_SECURITY": "none",
    }


def test_broker_is_not_left_behind_on_another_rabbitmq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMTP_HOST", "smtp.example.org")
    monkeypatch.setenv("AMQP_URL", "amqp://new.example.org")
    deployed(monkeypatch, FakeCluster(ELSEWHERE))
    assert "kubectl -n mp3burst delete secret rabbitmq" in capsys.readouterr().err
    settings.check(FakeCluster())
    monkeypatch.setenv("AMQP_URL", ELSEWHERE["rabbitmq"]["AMQP_URL"])
    settings.check(FakeCluster(ELSEWHERE))


def keys() -> tuple[str, str]:
    """Returns a new private key for tokens, and its public key."""
    private = infra.config._private_key()
    return private, infra.config._public_key(private)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SecretsCluster:
    """A cluster with an installation, in which secrets.sh has nothing to add."""
    private, public = keys()
    monkeypatch.setattr(settings, "run", lambda *_, **__: "")
    monkeypatch.setattr(settings, "command", lambda *_: ["kubectl"])
    return SecretsCluster(
        {
            "configmap/mp3burst": {"PUBLIC_URL": "http://gateway.mp3burst.example.org", "TOKEN_PUBLIC_KEYS": public},
            "secret/token-signing": {"TOKEN_PRIVATE_KEY": private},
            "secret/links": {"LINK_KEY": "l" * 32},
            "secret/webhooks": {"WEBHOOK_KEY": "w" * 32},
            "secret/log": {"LOG_KEY": "k"},
            "secret/media": {"MONGO_URI": "mongodb://mongo.example.org/videos"},
            "secret/mail": {"SMTP_HOST": "smtp.example.org"},
        }
    )


def test_every_variable_that_is_set_is_live_after_a_later_run(
    installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: dict(values) for name, values in installed.secrets.items()}
    settings.make(installed, WANTED, "http://gateway.mp3burst.example.org", None)
    assert installed.secrets == before

    given = {
        "OIDC_CLIENT_SECRET": "s3cret",
        "OIDC_PROVIDERS": '{"google": {}}',
        "PROXY_LOGIN_SECRET": "x" * 40,
        "LINK_KEY": f"{'m' * 32},{'l' * 32}",
        "WEBHOOK_KEY": "v" * 32,
        "PUBLIC_URL": "https://mp3.example.org",
        "OIDC_ISSUER": "https://auth.example.org",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings.make(installed, WANTED, given["PUBLIC_URL"], None)
    live = {name: value for values in installed.secrets.values() for name, value in values.items()}
    assert {name: live.get(name) for name in given} == given
    private = before["secret/token-signing"]["TOKEN_PRIVATE_KEY"]
    assert live["TOKEN_PRIVATE_KEY"] == private, "what is not set stays"


MAIL = {"SMTP_HOST": "smtp.example.org", "SMTP_USER": "me", "SMTP_PASSWORD": "p", "MAIL_FROM": "me@example.org"}
MEDIA = {"MONGO_URI": "mongodb://a", "MONGO_MP3_URI": "mongodb://b", "MIN_FREE_BYTES": "1"}
USERS = {"DATABASE_USERS_KEY": "off"}
DATABASE = {
    "MYSQL_HOST": "sql",
    "MYSQL_USER": "me",
    "MYSQL_PASSWORD": "p",
    "MYSQL_DB": "d",
    "DATABASE_USERS_KEY": "off",
}


@pytest.mark.parametrize(
    ("name", "given", "live"),
    [
        ("mail", {"MAIL_FROM": "new@example.org"}, MAIL | {"MAIL_FROM": "new@example.org"}),
        ("mail", {"SMTP_PASSWORD": "q"}, MAIL | {"SMTP_PASSWORD": "q"}),
        ("mail", {"SMTP_HOST": MAIL["SMTP_HOST"], "SMTP_PASSWORD": "q"}, MAIL | {"SMTP_PASSWORD": "q"}),
        ("mail", {"SENDGRID_API_KEY": "k", "MAIL_FROM": "a@b"}, {"SENDGRID_API_KEY": "k", "MAIL_FROM": "a@b"}),
        ("mail", {"SMTP_HOST": "relay"}, {"SMTP_HOST": "relay"}),
        ("mail", {"GMAIL_ADDRESS": "a@b", "GMAIL_PASSWORD": "p"}, {"GMAIL_ADDRESS": "a@b", "GMAIL_PASSWORD": "p"}),
        ("media", {"MIN_FREE_BYTES": "5"}, MEDIA | {"MIN_FREE_BYTES": "5"}),
        ("media", {"MONGO_URI": "mongodb://u:p%40@a"}, MEDIA | {"MONGO_URI": "mongodb://u:p%40@a"}),
        ("media", {"MONGO_MP3_URI": "mongodb://c"}, MEDIA | {"MONGO_MP3_URI": "mongodb://c"}),
        ("media", {"MONGO_URI": MEDIA["MONGO_URI"], "MIN_FREE_BYTES": "5"}, MEDIA | {"MIN_FREE_BYTES": "5"}),
        ("media", {"MONGO_URI": "mongodb://c"}, {"MONGO_URI": "mongodb://c", "MIN_FREE_BYTES": "1"}),
        ("database-owner", {"MYSQL_PASSWORD": "q"}, DATABASE | {"MYSQL_PASSWORD": "q"}),
        ("database-owner", {"MYSQL_HOST": "sql", "MYSQL_PASSWORD": "q"}, DATABASE | {"MYSQL_PASSWORD": "q"}),
        ("database-owner", {"MYSQL_PORT": "3307"}, DATABASE | {"MYSQL_PORT": "3307"}),
        (
            "database-owner",
            {"DATABASE_URL": "mysql://x/y"},
            {"DATABASE_URL": "mysql://x/y", **USERS},
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(each),
)
def test_variable_that_is_set_leaves_the_others_unless_it_names_another_server(
    installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch, name: str, given: dict[str, str], live: dict[str, str]
) -> None:
    users = {f"secret/database-{function}": rights.connection_of(function, DATABASE) for function in RIGHTS}
    installed.secrets |= {"secret/mail": MAIL, "secret/media": MEDIA, "secret/database-owner": DATABASE, **users}
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    settings.make(installed, WANTED, "http://gateway.mp3burst.example.org", None)
    assert installed.secrets[f"secret/{name}"] == live
    if name == "database-owner":
        assert installed.secrets["secret/database-login"] == rights.connection_of("login", live)


def test_one_server_of_several_is_chosen_by_naming_it_again(
    installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """notify takes the first that it has."""
    installed.secrets["secret/mail"] = MAIL | {"SENDGRID_API_KEY": "k"}
    monkeypatch.setenv("SMTP_HOST", MAIL["SMTP_HOST"])
    settings.make(installed, WANTED, "http://gateway.mp3burst.example.org", None)
    assert installed.secrets["secret/mail"] == MAIL


def test_another_key_for_sendgrid_leaves_the_sender(installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.secrets["secret/mail"] = {"SENDGRID_API_KEY": "old", "MAIL_FROM": "a@b"}
    monkeypatch.setenv("SENDGRID_API_KEY", "new")
    settings.make(installed, WANTED, "http://gateway.mp3burst.example.org", None)
    assert installed.secrets["secret/mail"] == {"SENDGRID_API_KEY": "new", "MAIL_FROM": "a@b"}


def test_links_follow_the_host_name(installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def links(host: str | None) -> str:
        settings.make(installed, WANTED, "http://mp3.example.org", host)
        return settings.public_url(installed)

    assert links(None) == "http://gateway.mp3burst.example.org"
    assert links("mp3.example.org") == "http://mp3.example.org"
    monkeypatch.setenv("PUBLIC_URL", "https://mp3.example.org")
    assert links("mp3.example.org") == "https://mp3.example.org"
    monkeypatch.delenv("PUBLIC_URL")
    assert links("mp3.example.org") == "https://mp3.example.org"
    assert links("other.example.org") == "http://other.example.org"
    monkeypatch.setenv("PUBLIC_URL", "https://proxy.example.org")
    assert links("other.example.org") == "https://proxy.example.org"
    monkeypatch.delenv("PUBLIC_URL")
    assert links("other.example.org") == "https://proxy.example.org", "a proxy in front has this name"
    installed.names = ()
    assert links("mp3.example.org") == "http://mp3.example.org", "everything but the settings was deleted"


def test_token_key_is_rotated_without_a_moment_at_which_nobody_can_log_in(
    installed: SecretsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = keys()
    old = installed.secrets["configmap/mp3burst"]["TOKEN_PUBLIC_KEYS"]

    def deploy(**variables: str) -> None:
        with monkeypatch.context() as context:
            for name, value in variables.items():
                context.setenv(name, value)
            settings.check(installed)
            settings.make(installed, WANTED, "", None)

    for wrong in ({"TOKEN_PRIVATE_KEY": private}, {"TOKEN_PUBLIC_KEYS": public}):
        with pytest.raises(CannotDeploy, match="does not have the public key"):
            deploy(**wrong)
    with pytest.raises(CannotDeploy, match="not a private key in PEM format"):
        deploy(TOKEN_PRIVATE_KEY="new")
    deploy(TOKEN_PUBLIC_KEYS=f"{old}{public}")
    deploy(TOKEN_PRIVATE_KEY=private)
    deploy(TOKEN_PUBLIC_KEYS=public)
    assert installed.secrets["secret/token-signing"]["TOKEN_PRIVATE_KEY"] == private
    assert installed.secrets["configmap/mp3burst"]["TOKEN_PUBLIC_KEYS"] == public


CRDS = "services.serving.knative.dev triggers.eventing.knative.dev rabbitmqbrokerconfigs.eventing.knative.dev"


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Checks a cluster that has everything, and a ConfigMap of Knative Serving with this content."""

    def check(name: str, content: str) -> None:
        crds = "\n".join(f"crd/{each}" for each in [*CRDS.split(), "queues.rabbitmq.com"])
        script = f"case \"$*\" in *customresourcedefinitions*) echo '{crds}' ;; *{name}*) echo '{content}' ;; esac"
        shell_program(tmp_path / "kubectl", script)
        monkeypatch.setenv("KUBECTL", str(tmp_path / "kubectl"))
        monkeypatch.setenv("KN", "true")
        Cluster().check()

    return check


@pytest.mark.parametrize(
    ("answer", "is_refused"),
    [
        ('{"data": {}}', True),
        ('{"data": {"use-remote-address": "false"}}', True),
        ('{"data": {"use-remote-address": "true"}}', False),
        ('{"data": {"enable-proxy-protocol": "true"}}', False),
        ("", False),  # another ingress, or no permission
    ],
)
def test_kourier_that_lets_clients_choose_their_address_is_refused(
    checked: Callable[[str, str], None], answer: str, is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(CannotDeploy, match="kubectl -n knative-serving patch configmap config-kourier"):
            checked("config-kourier", answer)
    else:
        checked("config-kourier", answer)


@pytest.mark.parametrize(
    ("answer", "is_refused"),
    [
        ('{"data": {}}', True),
        ('{"data": {"mesh-compatibility-mode": "auto"}}', True),
        ('{"data": {"mesh-compatibility-mode": "disabled"}}', False),
        ('{"data": {"mesh-compatibility-mode": "enabled"}}', False),
        ("", False),  # no permission
    ],
)
def test_an_activator_that_may_believe_in_a_mesh_is_refused(
    checked: Callable[[str, str], None], answer: str, is_refused: bool
) -> None:
    if is_refused:
        with pytest.raises(
            CannotDeploy, match=r"(?s)patch configmap config-network .* rollout restart deployment activator"
        ):
            checked("config-network", answer)
    else:
        checked("config-network", answer)
