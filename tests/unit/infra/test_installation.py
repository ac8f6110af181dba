"""The files of an installation: compose.yaml, the servers' manifests, the script for passwords and keys."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from events.bridge.__main__ import parse_route
from events.rabbitmq.topology import Topology
from functions.auth.links import Links
from functions.auth.tokens import Signer, Verifier
from functions.convert.distribution import DEFAULT_PIECES, MAX_SEEKING_PIECES
from functions.media import connect
from functions.state.schema import UserId
from infra import config
from infra.migrations.rights import CONNECTION, RIGHTS, connection_of
from tests.support.paths import ROOT
from tests.support.processes import shell_program
from tests.support.servers import program

INFRA = ROOT / "infra"
SERVERS = {"rabbitmq": "rabbitmq", "mongodb": "mongodb", "mysql": "mysql", "postgresql": "postgresql"}


def secrets(*arguments: str, **environ: str) -> str:
    program("openssl")
    done = subprocess.run(
        [str(INFRA / "secrets.sh"), *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def variables(file: Path) -> dict[str, str]:
    """Reads the variables as the shell does."""
    names = re.findall(r"^(\w+)='", file.read_text(), re.MULTILINE)
    script = f'set -a; . {file}; for name in {" ".join(names)}; do printf "%s\\0" "${{!name}}"; done'
    done = subprocess.run([program("bash"), "-c", script], capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.split("\0"), strict=False))


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    return found


def functions() -> dict[str, Any]:
    found = {}
    for file in (ROOT / "knative").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Service" and document["apiVersion"].startswith("serving.knative.dev/"):
                (found[document["metadata"]["name"]],) = document["spec"]["template"]["spec"]["containers"]
    return found


def documents(server: str) -> dict[str, Any]:
    text = (INFRA / server / f"{server}.yaml").read_text()
    return {f"{each['kind']} {each['metadata']['name']}": each for each in yaml.safe_load_all(text)}


@pytest.mark.parametrize("name", sorted(functions()))
def test_function_has_the_same_settings_in_compose_as_on_knative(name: str) -> None:
    container = functions()[name]
    service = compose()[name]
    env = {each["name"]: each["value"] for each in container["env"]}
    refs = [(each.get("configMapRef") or each["secretRef"])["name"] for each in container["envFrom"]]
    # A function that publishes to a broker on Knative publishes to RabbitMQ here.
    refs += ["rabbitmq"] * bool(env.pop("K_SINK", None))
    # One container is all that a function has here.
    places = service["environment"].pop("PLACES", None)

    assert (places is None) == (env.pop("PLACES", None) is None)
    assert service["environment"] == env
    assert [Path(file).stem for file in service["env_file"]] == refs
    assert service["image"] == container["image"]
    assert service["command"] == ["python", "-m", "infra.serve"]


def test_users_share_as_many_places_as_the_bridge_fills() -> None:
    services = compose()
    routes = re.findall(r"http://(\w+):8080;concurrency=(\d+)", services["bridge"]["environment"]["BRIDGE_ROUTES"])
    for name, concurrency in routes:
        environment = services[name]["environment"]
        assert int(environment["THREADS"]) >= int(concurrency), name
        if name in {"convert", "encode", "join", "fetch"}:
            assert environment["PLACES"] == concurrency, name


def test_queues_have_the_names_of_the_operator_on_both_sides(tmp_path: Path) -> None:
    """Those who publish and the bridge read the same file."""
    given = {"VIDEO_QUEUE": "films", "PIECE_QUEUE": "parts", "MP3_QUEUE": "sound", "HOOK_QUEUE": "calls"}
    for name, server in (("own", {}), ("other", {"AMQP_URL": "amqps://u:p@mq.example.org/v"})):
        secrets("files", str(tmp_path / name), **given, **server)
        topology = Topology.from_environ(variables(tmp_path / name / "rabbitmq.env"))
        assert topology.queues == ("films", "parts", "pieces", "sound", "calls", "fetch")
        routes = compose()["bridge"]["environment"]["BRIDGE_ROUTES"].split()
        queues = {parse_route(route, topology).queue for route in routes}
        assert queues == {*topology.queues, "dead"}


def test_a_job_has_as_many_pieces_as_one_user_gets_places() -> None:
    places = next(each["value"] for each in functions()["encode"]["env"] if each["name"] == "PLACES")
    assert int(places) // 2 == DEFAULT_PIECES


def test_every_service_has_limits_and_a_health_check() -> None:
    for name, service in compose().items():
        assert service["mem_limit"], name
        assert service["restart"] == ("on-failure:10" if name == "migrations" else "unless-stopped"), name
        assert re.search(r":v?\d+\.\d+", service["image"]) or service["image"].startswith("mp3burst/"), name
        assert "healthcheck" in service or name in {"bridge", "ping", "migrations", "mail"}, name
        if service["image"].startswith(("mp3burst/", "nginx")):
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name


def megabytes(text: str) -> int:
    return int(text[:-1]) * {"m": 1, "g": 1024}[text[-1]]


def test_temporary_files_leave_memory_for_the_processes() -> None:
    """A tmpfs counts against the container's memory: at most a quarter of it is for files."""
    for name, service in compose().items():
        sizes = [re.search(r"size=(\w+)", mount) for mount in service.get("tmpfs", [])]
        used = sum(megabytes(size[1]) if size else 1 << 20 for size in sizes)
        shared = megabytes(service["shm_size"]) if "shm_size" in service else 0
        assert used + shared <= megabytes(service["mem_limit"]) / 4, name
        # Converters may need more than any memory, so theirs are on a disk.
        on_disk = [mount for mount in service.get("volumes", []) if mount.endswith(":/tmp")]
        assert on_disk == ([f"{name}:/tmp"] if name in ("convert", "encode", "join") else []), name
        assert service.get("read_only") is None or bool(sizes) != bool(on_disk), name


def test_documented_memory_is_the_sum_of_all_limits() -> None:
    gib = sum(megabytes(service["mem_limit"]) for service in compose().values()) / 1024
    guide = (ROOT / "docs" / "server.md").read_text()
    assert f"The memory limits in the file add up to {gib:.1f} GiB" in " ".join(guide.split())


def test_every_image_of_ours_is_documented() -> None:
    guide = (ROOT / "docs" / "server.md").read_text()
    table = guide.partition("## Images")[2].partition("##")[0]
    rows = re.findall(r"^\| ([a-z, ]+) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"[a-z]+", row)} - {
        "image",
        "also",
        "and",
        "with",
        "one",
        "ffmpeg",
    }
    ours = {name for name, service in compose().items() if service["image"].startswith("mp3burst/")}
    assert named == ours


def test_no_file_contains_a_password() -> None:
    for name, service in compose().items():
        for variable in service.get("environment", {}):
            assert not re.search("PASS|KEY|SECRET|URI|URL", variable), f"{name}: {variable}"
    for server in SERVERS:
        for document in documents(server).values():
            assert document["kind"] != "Secret"


def test_compose_builds_every_image_of_ours() -> None:
    """A service without ``build`` may be the first to need its image, and would pull a stranger's of the same name."""
    for name, service in compose().items():
        if not service["image"].startswith("mp3burst/"):
            assert "build" not in service, name
        elif name == "gateway":
            assert service["build"]["dockerfile"] == "functions/gateway/Dockerfile"
        else:
            assert "build" in service, name
            assert service["image"] == f"mp3burst/{service['build']['args']['FUNCTION']}:latest", name


def compose_config(folder: Path, **environ: str) -> dict[str, Any]:
    """Returns the services as docker-compose reads them, with the files in this folder."""
    done = subprocess.run(
        [program("docker-compose"), "-f", str(INFRA / "compose.yaml"), "config"],
        env={"PATH": os.environ["PATH"], "MP3BURST_SECRETS": str(folder), **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return found


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    secrets("files", str(tmp_path))
    environment = compose_config(tmp_path)["validate"]["environment"]
    # Compose must read a multi-line key as the shell does.
    assert environment["TOKEN_PUBLIC_KEYS"] == variables(tmp_path / "mp3burst.env")["TOKEN_PUBLIC_KEYS"]
    Verifier(environment["TOKEN_PUBLIC_KEYS"])


def test_port_and_proxy_stay_as_they_are_in_a_file(tmp_path: Path) -> None:
    """A later ``up`` from another shell, or after a reboot, has none of the variables of the first."""
    folder = tmp_path / "infra"
    folder.mkdir()
    (folder / "compose.yaml").write_text((INFRA / "compose.yaml").read_text())
    secrets("files", str(folder / "secrets"))
    (folder / ".env").write_text("MP3BURST_PORT=127.0.0.1:81\nMP3BURST_BEHIND_PROXY=yes\n")
    done = subprocess.run(
        [program("docker-compose"), "-f", "infra/compose.yaml", "config"],
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    gateway = yaml.safe_load(done.stdout)["services"]["gateway"]
    assert gateway["environment"]["BEHIND_PROXY"] == "yes"
    assert gateway["ports"] == ["127.0.0.1:81:8080/tcp"]
    for file in (".gitignore", ".dockerignore"):
        assert "infra/.env" in (ROOT / file).read_text().splitlines(), file


@pytest.mark.parametrize("name", SERVERS)
def test_server_has_persistent_storage_and_no_privileges(name: str) -> None:
    found = documents(name)
    stateful = found[f"StatefulSet {name}"]["spec"]
    pod = stateful["template"]["spec"]
    (container,) = pod["containers"]
    if name != "mysql":
        assert container["image"] == compose()[name]["image"]
    version = r"([a-z]+:\d+\.\d+\.\d+(-management)?|postgres:\d+\.\d+)(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(version, container["image"])
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert container["envFrom"] == [{"secretRef": {"name": name}}]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (claim,) = stateful["volumeClaimTemplates"]
    assert claim["metadata"]["name"] in {mount["name"] for mount in container["volumeMounts"]}
    assert found[f"Service {stateful['serviceName']}"]["spec"]["clusterIP"] == "None"
    assert f"Service {name}" in found
    assert found[f"NetworkPolicy {name}"]["spec"]["podSelector"]["matchLabels"] == stateful["selector"]["matchLabels"]


def test_passwords_and_keys_are_generated_once(tmp_path: Path) -> None:
    secrets("files", str(tmp_path))
    first = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())

    (tmp_path / "links.env").unlink()
    assert secrets("files", str(tmp_path)) == f"made {tmp_path}/links.env\n"
    second = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert second.pop("links.env") != first.pop("links.env")
    assert second == first


def test_generated_settings_match_each_other(tmp_path: Path) -> None:
    secrets("files", str(tmp_path), PUBLIC_URL="http://mp3converter.com:8080", KEEP_DAYS="30")
    made = {file.stem: variables(file) for file in tmp_path.iterdir()}

    for name, names in config.VARIABLES.items():
        assert made[name].keys() <= set(names.split()), name
    assert made.keys() == {*config.VARIABLES, "rabbitmq", "mongodb", "postgresql"}
    token = Signer(made["token-signing"]["TOKEN_PRIVATE_KEY"]).sign(UserId("1"), "ann", "user")
    assert Verifier(made["mp3burst"]["TOKEN_PUBLIC_KEYS"]).verify(token).username == "ann"
    assert (
        Links.from_environ({**made["links"], **made["mp3burst"]})
        .make(UserId("1"), "f")
        .startswith("http://mp3converter.com:8080/")
    )
    assert made["mp3burst"]["KEEP_DAYS"] == "30"
    owner = make_url(made["database-owner"]["DATABASE_URL"])
    assert owner.password == made["postgresql"]["POSTGRES_PASSWORD"]
    for function in RIGHTS:
        assert made[f"database-{function}"] == connection_of(function, made["database-owner"])
    passwords = {make_url(made[f"database-{function}"]["DATABASE_URL"]).password for function in RIGHTS}
    assert len(passwords - {owner.password}) == len(RIGHTS)
    assert f":{made['mongodb']['MONGO_PASSWORD']}@" in made["media"]["MONGO_URI"]
    assert f":{made['rabbitmq']['RABBITMQ_DEFAULT_PASS']}@" in made["rabbitmq"]["AMQP_URL"]


def test_user_of_mongodb_may_write_all_stores() -> None:
    media = connect({"MONGO_URI": "mongodb://mongo.example.org/videos"})
    allowed = re.findall(r'role: "readWrite", db: "(\w+)"', (INFRA / "mongodb/users.js").read_text())
    assert [vars(media[name])["_database"] for name in ("videos", "pieces", "mp3s")] == allowed


@pytest.mark.parametrize(("cpus", "pieces"), [(1, 2), (8, 8), (999, MAX_SEEKING_PIECES)])
def test_single_server_splits_long_videos_by_its_cpus(tmp_path: Path, cpus: int, pieces: int) -> None:
    shell_program(tmp_path / "getconf", f'[ "$*" = _NPROCESSORS_ONLN ] && echo {cpus}')
    path = f"{tmp_path}:{os.environ['PATH']}"
    secrets("files", str(tmp_path / "a"), PATH=path)
    assert variables(tmp_path / "a/mp3burst.env")["FANOUT_PIECES"] == str(pieces)
    secrets("files", str(tmp_path / "b"), PATH=path, FANOUT_PIECES="7")
    assert variables(tmp_path / "b/mp3burst.env")["FANOUT_PIECES"] == "7"


def test_every_setting_of_the_operator_is_used(tmp_path: Path) -> None:
    """One that is dropped is like one that was never set, and some are for security."""
    names = {*config.VARIABLES["mp3burst"].split(), "MIN_FREE_BYTES"} - {"FFMPEG"}  # the images have their own
    secrets("files", str(tmp_path), **dict.fromkeys(names, "7"))
    made = variables(tmp_path / "mp3burst.env") | variables(tmp_path / "media.env")
    assert {name for name in names if made.get(name) != "7"} == set()


def test_external_servers_are_used(tmp_path: Path) -> None:
    given = {
        "AMQP_URL": "amqps://u:p@mq.example.org/v",
        "DATABASE_URL": "mysql://u:p@sql.example.org/d?ssl_ca=/etc/ssl/certs/ca.pem",
        "MONGO_URI": "mongodb+srv://u:p@mongo.example.org/videos",
        "SMTP_HOST": "smtp.example.org",
        "SMTP_PASSWORD": "$ecret & more",
    }
    secrets("files", str(tmp_path), **given)
    made = {file.stem: variables(file) for file in tmp_path.iterdir()}

    for name, value in given.items():
        assert value in [each.get(name) for each in made.values()], name
    # Compose starts the servers that nobody uses, too, and nothing without the files that they name.
    configured = compose_config(tmp_path)
    assert configured["migrations"]["environment"]["DATABASE_URL"] == given["DATABASE_URL"]


@pytest.mark.parametrize(
    "given",
    [
        {"DATABASE_URL": "mysql://u:p@sql.example.org/d?ssl_ca=/etc/ssl/certs/ca.pem"},
        {"DATABASE_URL": "postgresql+psycopg://sql.example.org:5433/d"},
        {"DATABASE_URL": "postgresql://sql.example.org/d", "DATABASE_USERS_KEY": "off"},
        {"MYSQL_HOST": "sql.example.org", "MYSQL_USER": "u", "MYSQL_PASSWORD": "p", "MYSQL_DB": "d"},
        {"DATABASE_URL": "mysql://u:p@sql.example.org/d", "MYSQL_HOST": "sql.example.org", "MYSQL_PASSWORD": "p"},
    ],
)
def test_functions_connect_as_the_migrations_expect(tmp_path: Path, given: dict[str, str]) -> None:
    secrets("files", str(tmp_path), **given)
    made = {file.stem: variables(file) for file in tmp_path.iterdir()}
    assert given.items() <= made["database-owner"].items()
    for function in RIGHTS:
        assert made[f"database-{function}"] == connection_of(function, made["database-owner"])
    is_off = "DATABASE_USERS_KEY" in given
    assert "p" not in made["database-convert"].values()
    assert (made["database-convert"] == {name: given[name] for name in given if name in CONNECTION}) == is_off


def test_installation_in_which_all_functions_used_the_owner_is_upgraded(tmp_path: Path) -> None:
    old = "DATABASE_URL='postgresql://mp3burst:old@postgresql:5432/mp3burst'\nLOG_KEY='old key'\n"
    (tmp_path / "database.env").write_text(old)
    secrets("files", str(tmp_path))
    made = {file.stem: variables(file) for file in tmp_path.iterdir()}
    assert made["database-owner"]["DATABASE_URL"] == made["database"]["DATABASE_URL"]
    assert made["log"] == {"LOG_KEY": "old key"}
    assert make_url(made["database-upload"]["DATABASE_URL"]).username == "mp3burst_upload"


def test_value_that_an_env_file_cannot_hold_is_rejected(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(INFRA / "secrets.sh"), "files", str(tmp_path)],
        env={"PATH": os.environ["PATH"], "SMTP_HOST": "smtp.example.org", "SMTP_PASSWORD": "it's"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("SMTP_PASSWORD has a quote")
    assert not (tmp_path / "mail.env").exists()


def backup_and_restore() -> tuple[str, str]:
    """Returns the commands of docs/server.md."""
    text = (ROOT / "docs/server.md").read_text()
    blocks = re.findall(r"(?:^    .+\n)+", text.partition("\n## Backup, upgrade, rollback\n")[2], re.MULTILINE)
    return blocks[0], blocks[1]


@pytest.mark.parametrize("has_port", [True, False])
def test_backup_is_restored_on_another_machine(tmp_path: Path, has_port: bool) -> None:
    """With servers that note what they are given: a dump is their name."""
    real = program("docker-compose")
    (tmp_path / "bin").mkdir()
    shell_program(
        tmp_path / "bin/docker-compose",
        f"""
        [ -e infra/secrets/mp3burst.env ] || {{ echo "Couldn't find env file" >&2; exit 1; }}
        echo "$*" >>calls
        case "$*" in
            *" config "*) exec {real} "$@" ;;
            *"pg_dump "* | *mongodump*) echo "$5" ;;
            *"pg_restore "* | *mongorestore*) echo "$5 gets $(cat)" >>restored ;;
        esac
        """,
    )

    def run(machine: str, commands: str) -> Path:
        folder = tmp_path / machine / "mp3burst"
        (folder / "infra").mkdir(parents=True, exist_ok=True)
        shutil.copy(INFRA / "compose.yaml", folder / "infra")
        environ = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        subprocess.run([program("bash"), "-euc", commands], cwd=folder, env=environ, check=True)
        return folder

    backup, restore = backup_and_restore()
    old = tmp_path / "old/mp3burst"
    secrets("files", str(old / "infra/secrets"))
    if has_port:
        (old / "infra/.env").write_text("MP3BURST_PORT=80\n")
    run("old", backup)
    stopped = next(line for line in (old / "calls").read_text().splitlines() if " stop " in line)
    assert {*stopped.split()[3:]} == {*functions(), "gateway", "bridge", "ping", "migrations"}
    (tmp_path / "old/backup").rename(tmp_path / "backup")
    (tmp_path / "new").mkdir()
    (tmp_path / "backup").rename(tmp_path / "new/backup")
    new = run("new", restore)
    assert (new / "restored").read_text() == "postgresql gets postgresql\nmongodb gets mongodb\n"
    assert (new / "infra/.env").exists() == has_port
    for file in (old / "infra/secrets").iterdir():
        assert (new / "infra/secrets" / file.name).read_text() == file.read_text()
    assert (tmp_path / "new/backup").stat().st_mode & 0o777 == 0o700
    run("new", restore)


KUBECTL = """#!/usr/bin/env python3
# Stores each created object in a file, and answers the script's get commands.
import base64, pathlib, sys
import yaml
place = pathlib.Path(__file__).parent / "kept"
args = sys.argv[1:]
assert args[:2] == ["-n", "mine"], args
if args[2] == "create":
    document = yaml.safe_load(sys.stdin)
    with (place / f"{document['kind'].lower()}-{document['metadata']['name']}").open("x") as file:
        yaml.safe_dump(document, file)
else:
    file = place / f"{args[3]}-{args[4]}"
    if "--ignore-not-found" in args:
        print(f"{args[3]}/{args[4]}" if file.exists() else "", end="")
    else:
        key = args[-1].removeprefix("jsonpath={.data.").removesuffix("}")
        print(base64.b64encode(yaml.safe_load(file.read_text())["stringData"][key].encode()).decode(), end="")
"""


@pytest.mark.parametrize("sql", ["postgresql", "mysql"])
def test_kubernetes_mode_creates_secrets_and_a_config_map(tmp_path: Path, sql: str) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL.replace("/usr/bin/env python3", sys.executable))
    kubectl.chmod(0o755)
    kept = tmp_path / "kept"
    kept.mkdir()
    path = f"{tmp_path}:{os.environ['PATH']}"
    secrets("kubernetes", "mine", sql, PATH=path)
    first = {file.name: yaml.safe_load(file.read_text()) for file in kept.iterdir()}
    secrets("kubernetes", "mine", sql, PATH=path)
    assert first == {file.name: yaml.safe_load(file.read_text()) for file in kept.iterdir()}

    named = {
        (each.get("configMapRef") or each["secretRef"])["name"] for c in functions().values() for each in c["envFrom"]
    }
    assert {name.partition("-")[2] for name in first} == named | {"database-owner", "rabbitmq", "mongodb", sql}
    owner = make_url(first["secret-database-owner"]["stringData"]["DATABASE_URL"])
    assert owner.username == ("root" if sql == "mysql" else "mp3burst"), "it must be allowed to create users"
    for document in first.values():
        data = document.get("stringData") or document["data"]
        assert all(isinstance(value, str) and value for value in data.values()), "Kubernetes takes strings only"
    assert "FANOUT_PIECES" not in first["configmap-mp3burst"]["data"]  # a cluster's CPUs are not this machine's
    public = first["configmap-mp3burst"]["data"]["TOKEN_PUBLIC_KEYS"]
    token = Signer(first["secret-token-signing"]["stringData"]["TOKEN_PRIVATE_KEY"]).sign(UserId("1"), "ann", "user")
    assert Verifier(public).verify(token).username == "ann"
    broker = first["secret-rabbitmq"]["stringData"]
    assert broker["uri"] == "http://rabbitmq.mine:15672"
    assert f"{broker['username']}:{broker['password']}@rabbitmq:{broker['port']}/" in broker["AMQP_URL"]


def test_external_rabbitmq_is_passed_to_the_broker(tmp_path: Path) -> None:
    kubectl = tmp_path / "kube"
    kubectl.write_text(KUBECTL.replace("/usr/bin/env python3", sys.executable).replace("sys.argv[1:]", "sys.argv[2:]"))
    kubectl.chmod(0o755)
    (tmp_path / "kept").mkdir()
    given = {
        "KUBECTL": f"{kubectl} inside",
        "AMQP_URL": "amqp://ann:p%40ss@mq.example.org:5673/%2F",
        "DATABASE_URL": "mysql://u:p@sql.example.org/d",
        "MONGO_URI": "mongodb://mongo.example.org/videos",
    }
    secrets("kubernetes", "mine", PATH=os.environ["PATH"], **given)
    made = {file.name for file in (tmp_path / "kept").iterdir()}
    assert not {"secret-postgresql", "secret-mongodb"} & made
    broker = yaml.safe_load((tmp_path / "kept/secret-rabbitmq").read_text())["stringData"]
    uri = "http://mq.example.org:15672"
    amqp = given["AMQP_URL"]
    assert broker == {"AMQP_URL": amqp, "username": "ann", "password": "p@ss", "uri": uri, "port": "5673"}

    # Later runs do not need the variables, and generate no passwords for other servers.
    secrets("kubernetes", "mine", PATH=os.environ["PATH"], KUBECTL=given["KUBECTL"])
    assert {file.name for file in (tmp_path / "kept").iterdir()} == made
