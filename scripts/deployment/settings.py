"""The ConfigMap and the Secrets: made once, kept, and changed where a variable is set when deploy runs."""

import base64
import json
import os
from collections.abc import Mapping

from infra.config import VARIABLES
from scripts.deployment.cluster import NAMESPACE, ROOT, CannotDeploy, Cluster, command, run, say

#: Servers that can be installed: what names an existing one instead, and the Secret that says which one it is.
SERVERS = {
    "rabbitmq": ({"AMQP_URL"}, "rabbitmq"),
    "mongodb": ({"MONGO_URI"}, "media"),
    "postgresql": ({"DATABASE_URL", "MYSQL_HOST"}, "database"),
    "mysql": ({"DATABASE_URL", "MYSQL_HOST"}, "database"),
}
_MAIL = {"SENDGRID_API_KEY", "SMTP_HOST", "GMAIL_ADDRESS"}


def servers(cluster: Cluster, wanted: list[str]) -> list[str]:
    """Which servers have to be installed.

    Args:
        cluster: where; what an earlier run installed stays.
        wanted: of which kind they are, one for SQL: those whose URL is set, or was when the Secrets were made, are not.

    Raises:
        CannotDeploy: ``wanted`` names what is unknown, or two for SQL.
    """
    if unknown := [name for name in wanted if name not in SERVERS]:
        raise CannotDeploy(f"There is no server {unknown[0]}: choose from {', '.join(SERVERS)}.")
    if {"postgresql", "mysql"} <= {*wanted}:
        raise CannotDeploy("Choose one of postgresql and mysql.")
    there = {each["metadata"]["name"] for each in cluster.get("secrets")}
    kept = {name for each in cluster.get("statefulsets") if (name := each["metadata"]["name"]) in SERVERS}
    return [
        name for name in wanted if name in kept or not (SERVERS[name][0] & _given().keys() or SERVERS[name][1] in there)
    ]


def make(cluster: Cluster, wanted: list[str], public_url: str) -> None:
    """Make what is missing, and bring what is there up to the variables that are set.

    Args:
        cluster: where.
        wanted: as for ``servers``.
        public_url: what links begin with where PUBLIC_URL is not set and nothing is there yet.

    Raises:
        CannotDeploy: mails have nowhere to go, or something failed.
    """
    there = {each["metadata"]["name"] for each in cluster.get("secrets")}
    if "mail" not in there and not _MAIL & _given().keys():
        raise CannotDeploy(
            "Mails have nowhere to go: set SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS (infra/env.example), "
            "or take --mail catcher, which shows them to you alone."
        )
    sql = next((name for name in wanted if name in ("postgresql", "mysql")), "postgresql")
    said = run(
        [ROOT / "infra/secrets.sh", "kubernetes", NAMESPACE, sql],
        environ={"KUBECTL": " ".join(command("KUBECTL", "kubectl")), "PUBLIC_URL": public_url, **_given()},
    )
    for line in said.splitlines():
        say(f"  {line}")
    for name in ("database", "media", "mail"):
        _bring_up(cluster, "secret", name, whole=True)
    _bring_up(cluster, "configmap", "mp3burst", whole=False)


def _given() -> Mapping[str, str]:
    known = {variable for names in VARIABLES.values() for variable in names.split()} | {"AMQP_URL"}
    return {name: value for name, value in os.environ.items() if name in known and value}


def _bring_up(cluster: Cluster, kind: str, name: str, whole: bool) -> None:
    """Make an object hold the variables of it that are set; ``whole``: and nothing else, if one of them is set."""
    mine = {variable: value for variable, value in _given().items() if variable in VARIABLES[name].split()}
    (found,) = cluster.get(f"{kind}/{name}")
    data = found.get("data", {})
    old = {key: base64.b64decode(value).decode() for key, value in data.items()} if kind == "secret" else data
    new = mine if whole and mine else {**old, **mine}
    if new == old:
        return
    text = {key: base64.b64encode(value.encode()).decode() for key, value in new.items()} if kind == "secret" else new
    gone = dict.fromkeys(old.keys() - new.keys())
    # By a file: arguments of a command can be read by everybody on the machine.
    cluster.kubectl("patch", kind, name, "--patch-file", "/dev/stdin", given=json.dumps({"data": {**text, **gone}}))
    say(f"  {kind}/{name} changed")


def public_url(cluster: Cluster) -> str:
    """What links begin with."""
    (found,) = cluster.get("configmap/mp3burst")
    return str(found["data"]["PUBLIC_URL"])
