"""Creates the ConfigMap and the Secrets once, and updates them from the variables that are set when deploy runs."""

import base64
import json
import os
from collections.abc import Mapping

from infra.config import VARIABLES
from infra.migrations.rights import CONNECTION, RIGHTS, connection_of
from scripts.deployment.cluster import NAMESPACE, ROOT, CannotDeploy, Cluster, command, run, say

#: Secrets with the SQL database's address; versions without a user for each function had only the second.
_DATABASE = {"database-owner", "database"}
#: Servers that can be installed: the variables that name an existing server instead, and the Secrets with its address.
SERVERS = {
    "rabbitmq": ({"AMQP_URL"}, {"rabbitmq"}),
    "mongodb": ({"MONGO_URI"}, {"media"}),
    "postgresql": ({"DATABASE_URL", "MYSQL_HOST"}, _DATABASE),
    "mysql": ({"DATABASE_URL", "MYSQL_HOST"}, _DATABASE),
}
_MAIL = {"SENDGRID_API_KEY", "SMTP_HOST", "GMAIL_ADDRESS"}


def servers(cluster: Cluster, wanted: list[str]) -> list[str]:
    """Returns which servers to install.

    Args:
        cluster: the cluster; servers that an earlier run installed are included.
        wanted: the servers that mp3burst needs, one of them for SQL. A server is left out if its URL is set, or was set
            when the Secrets were created.

    Raises:
        CannotDeploy: ``wanted`` has an unknown server, or two for SQL.
    """
    if unknown := [name for name in wanted if name not in SERVERS]:
        raise CannotDeploy(f"There is no server {unknown[0]}: choose from {', '.join(SERVERS)}.")
    if {"postgresql", "mysql"} <= {*wanted}:
        raise CannotDeploy("Choose one of postgresql and mysql.")
    secrets = {each["metadata"]["name"] for each in cluster.get("secrets")}
    installed = {name for each in cluster.get("statefulsets") if (name := each["metadata"]["name"]) in SERVERS}
    return [
        name
        for name in wanted
        if name in installed or not (SERVERS[name][0] & _variables().keys() or SERVERS[name][1] & secrets)
    ]


def make(cluster: Cluster, wanted: list[str], public_url: str) -> None:
    """Creates what is missing, and updates what exists from the variables that are set.

    Args:
        cluster: the cluster.
        wanted: as for ``servers``.
        public_url: the start of links if PUBLIC_URL is not set and the ConfigMap does not exist yet.

    Raises:
        CannotDeploy: no mail server is set, or something failed.
    """
    secrets = {each["metadata"]["name"] for each in cluster.get("secrets")}
    if "mail" not in secrets and not _MAIL & _variables().keys():
        raise CannotDeploy(
            "No mail server is set: set SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS (infra/env.example), "
            "or use --mail catcher, which shows emails and delivers none."
        )
    sql = next((name for name in wanted if name in ("postgresql", "mysql")), "postgresql")
    output = run(
        [ROOT / "infra/secrets.sh", "kubernetes", NAMESPACE, sql],
        environ={"KUBECTL": " ".join(command("KUBECTL", "kubectl")), "PUBLIC_URL": public_url, **_variables()},
    )
    for line in output.splitlines():
        say(f"  {line}")
    _update_databases(cluster)
    for name in ("log", "media", "mail"):
        _update(cluster, "secret", name, replace=True)
    _update(cluster, "configmap", "mp3burst", replace=False)


def _variables() -> Mapping[str, str]:
    known = {variable for names in VARIABLES.values() for variable in names.split()} | {"AMQP_URL"}
    return {name: value for name, value in os.environ.items() if name in known and value}


def _update_databases(cluster: Cluster) -> None:
    """Writes the variables that are set to the owner's Secret, and what follows from them to those of the functions."""
    mine = {name: value for name, value in _variables().items() if name in VARIABLES["database-owner"].split()}
    if not mine:
        return
    old = _read(cluster, "secret", "database-owner")
    kept = {name: value for name, value in old.items() if not mine.keys() & {*CONNECTION} or name not in CONNECTION}
    owner = {**kept, **mine}
    _write(cluster, "secret", "database-owner", owner)
    for function in RIGHTS:
        _write(cluster, "secret", f"database-{function}", connection_of(function, owner))


def _update(cluster: Cluster, kind: str, name: str, replace: bool) -> None:
    """Writes the variables that are set to an object; with ``replace``, removes all others if one is set."""
    mine = {variable: value for variable, value in _variables().items() if variable in VARIABLES[name].split()}
    _write(cluster, kind, name, mine if replace and mine else {**_read(cluster, kind, name), **mine})


def _read(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    (found,) = cluster.get(f"{kind}/{name}")
    data = found.get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()} if kind == "secret" else dict(data)


def _write(cluster: Cluster, kind: str, name: str, new: Mapping[str, str]) -> None:
    old = _read(cluster, kind, name)
    if new == old:
        return
    text = {key: base64.b64encode(value.encode()).decode() for key, value in new.items()} if kind == "secret" else new
    removed = dict.fromkeys(old.keys() - new.keys())
    # As a file: everybody on the machine can read the arguments of a command.
    cluster.kubectl("patch", kind, name, "--patch-file", "/dev/stdin", stdin=json.dumps({"data": {**text, **removed}}))
    say(f"  {kind}/{name} changed")


def public_url(cluster: Cluster) -> str:
    """Returns PUBLIC_URL, which links start with."""
    (found,) = cluster.get("configmap/mp3burst")
    return str(found["data"]["PUBLIC_URL"])
