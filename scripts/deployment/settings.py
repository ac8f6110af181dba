"""Creates the ConfigMap and the Secrets once, and updates them from the variables that are set when deploy runs."""

import base64
import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from events.errors import Mp3burstError
from functions.auth.tokens import NotAuthenticated, Signer, Verifier
from functions.state.schema import UserId
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
#: What secrets.sh generates for a server that is installed here. ``--delete`` keeps it, with the server's data.
_GENERATED = {
    "rabbitmq": ("rabbitmq", "RABBITMQ_DEFAULT_USER"),
    "mongodb": ("mongodb", "MONGO_PASSWORD"),
    "postgresql": ("postgresql", "POSTGRES_PASSWORD"),
    "mysql": ("mysql", "MYSQL_PASSWORD"),
}
_MAIL = {"SENDGRID_API_KEY", "SMTP_HOST", "GMAIL_ADDRESS"}
#: The variables of which one names a server, by its Secret, and those that are of no use with another server.
_SELECTING = {
    "database-owner": ({"DATABASE_URL", "MYSQL_HOST"}, {*CONNECTION}),
    "media": ({"MONGO_URI", "MEDIA_DIR"}, {"MONGO_URI", "MONGO_MP3_URI", "MEDIA_DIR"}),
    "mail": (_MAIL, {*VARIABLES["mail"].split()}),
}


def use_catcher() -> None:
    """Sets the variables of the mail catcher, and no others of mails: they could deliver them."""
    for name in VARIABLES["mail"].split():
        os.environ.pop(name, None)
    for line in shlex.split((ROOT / "infra/mail/catcher.env").read_text(), comments=True):
        name, _, value = line.partition("=")
        os.environ[name] = value


def servers(cluster: Cluster, wanted: list[str]) -> list[str]:
    """Returns which servers to install.

    Args:
        cluster: the cluster; servers that an earlier run installed are included, although they were deleted since.
        wanted: the servers that mp3burst needs, one of them for SQL. A server is left out if its URL is set, or was set
            when the Secrets were created.

    Raises:
        CannotDeploy: ``wanted`` has an unknown server, or two for SQL.
    """
    if unknown := [name for name in wanted if name not in SERVERS]:
        raise CannotDeploy(f"There is no server {unknown[0]}: choose from {', '.join(SERVERS)}.")
    if {"postgresql", "mysql"} <= {*wanted}:
        raise CannotDeploy("Choose one of postgresql and mysql.")
    given = _variables().keys()
    secrets = _secrets(cluster)
    installed = {name for each in cluster.get("statefulsets") if (name := each["metadata"]["name"]) in SERVERS}

    def is_wanted(name: str) -> bool:
        variables, addresses = SERVERS[name]
        secret, key = _GENERATED[name]
        is_generated = key in secrets.get(secret, {}).get("data", {})
        return not variables & given and (is_generated or not addresses & secrets.keys())

    return [name for name in wanted if name in installed or is_wanted(name)]


def check(cluster: Cluster) -> None:
    """Checks the variables that are set, before anything is created or changed.

    Raises:
        CannotDeploy: no mail server is set, RabbitMQ is another one than the broker's, or login would sign tokens that
            no function accepts.
    """
    given = _variables()
    secrets = _secrets(cluster)
    if "mail" not in secrets and not _MAIL & given.keys():
        raise CannotDeploy(
            "No mail server is set: set SMTP_HOST, SENDGRID_API_KEY or GMAIL_ADDRESS (infra/env.example), "
            "or use --mail catcher, which shows emails and delivers none."
        )
    url = given.get("AMQP_URL")
    if url and "rabbitmq" in secrets and url != _decoded(secrets["rabbitmq"]).get("AMQP_URL"):
        raise CannotDeploy(
            "AMQP_URL is not the RabbitMQ that the broker uses, and a broker cannot move to another one: unset it, or "
            "run `./scripts/deploy --delete` and `kubectl -n mp3burst delete secret rabbitmq`, then deploy again."
        )
    if given.keys() & {"TOKEN_PRIVATE_KEY", "TOKEN_PUBLIC_KEYS"}:
        _check_token_keys({**_decoded(secrets.get("token-signing", {})), **_settings(cluster), **given})


def _check_token_keys(known: Mapping[str, str]) -> None:
    private = known.get("TOKEN_PRIVATE_KEY")
    public = known.get("TOKEN_PUBLIC_KEYS")
    if not private or not public:  # what is missing is made to match
        return
    try:
        Verifier(public).verify(Signer(private).sign(UserId("deploy"), "deploy", "user"))
    except NotAuthenticated as error:
        raise CannotDeploy(
            "TOKEN_PUBLIC_KEYS does not have the public key of TOKEN_PRIVATE_KEY, so that no function would accept a "
            "token of login: add it first (docs/settings.md describes the rotation)."
        ) from error
    except Mp3burstError as error:
        raise CannotDeploy(str(error)) from error


def make(cluster: Cluster, wanted: list[str], public_url: str, host: str | None) -> None:
    """Creates what is missing, and updates what exists from the variables that are set.

    Args:
        cluster: the cluster.
        wanted: as for ``servers``.
        public_url: the start of links if PUBLIC_URL is not set and the ConfigMap does not exist yet.
        host: the host name of the gateway, if one was chosen: links move to it unless PUBLIC_URL is set.

    Raises:
        CannotDeploy: something failed.
    """
    sql = next((name for name in wanted if name in ("postgresql", "mysql")), "postgresql")
    output = run(
        [ROOT / "infra/secrets.sh", "kubernetes", NAMESPACE, sql],
        environ={"KUBECTL": " ".join(command("KUBECTL", "kubectl")), "PUBLIC_URL": public_url, **_variables()},
    )
    for line in output.splitlines():
        say(f"  {line}")
    _update_databases(cluster)
    for name in ("log", "media", "mail", "token-signing", "links", "webhooks"):
        _update(cluster, "secret", name)
    # Links that begin with neither the name that Knative gave the gateway nor an earlier --host have a proxy's name.
    # After a deletion the cluster has no name.
    links = urlsplit(_settings(cluster)["PUBLIC_URL"]).hostname
    is_moved = host not in (None, links) and links in (_names(cluster) or {links})
    _update(cluster, "configmap", "mp3burst", {"PUBLIC_URL": f"http://{host}"} if is_moved else {})


def _names(cluster: Cluster) -> set[str | None]:
    """Returns the host names that the cluster itself has for the gateway."""
    found = cluster.get("services.serving.knative.dev/gateway")
    assigned = {urlsplit(each.get("status", {}).get("url", "")).hostname for each in found}
    return assigned | {each["metadata"]["name"] for each in cluster.get("domainmappings.serving.knative.dev")}


def _secrets(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Returns all Secrets by their names."""
    return {each["metadata"]["name"]: each for each in cluster.get("secrets")}


def _settings(cluster: Cluster) -> dict[str, str]:
    """Returns the ConfigMap, which is empty before the first deployment."""
    return next((dict(each.get("data", {})) for each in cluster.get("configmap/mp3burst")), {})


def _variables() -> Mapping[str, str]:
    known = {variable for names in VARIABLES.values() for variable in names.split()} | {"AMQP_URL"}
    return {name: value for name, value in os.environ.items() if name in known and value}


def _update_databases(cluster: Cluster) -> None:
    """Writes the variables that are set to the owner's Secret, and what follows from them to those of the functions."""
    if not _variables().keys() & {*VARIABLES["database-owner"].split()}:
        return
    owner = _update(cluster, "secret", "database-owner")
    for function in RIGHTS:
        _write(cluster, "secret", f"database-{function}", connection_of(function, owner))


def _update(cluster: Cluster, kind: str, name: str, defaults: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Writes the variables that are set to an object; those that are not stay, unless they are another server's.

    Args:
        cluster: the cluster.
        kind: ``configmap`` or ``secret``.
        name: of the object.
        defaults: values of variables that are not set.

    Returns:
        What the object has now.
    """
    mine = {variable: value for variable, value in _variables().items() if variable in VARIABLES[name].split()}
    selecting, replaced = _SELECTING.get(name, (set(), set()))
    old = _read(cluster, kind, name)
    given = selecting & mine.keys()
    if any(_named(variable, mine[variable]) != _named(variable, old.get(variable, "")) for variable in given):
        old = {variable: value for variable, value in old.items() if variable not in replaced}
    elif given:
        old = {variable: value for variable, value in old.items() if variable not in selecting - given}
    new = {**old, **(defaults or {}), **mine}
    _write(cluster, kind, name, new)
    return new


def _named(variable: str, value: str) -> str:
    """Returns the server that a value names, without the password or key for it."""
    if variable == "SENDGRID_API_KEY":
        return "SendGrid" if value else ""
    return re.sub("//[^/]*@", "//", value, count=1)


def _read(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    (found,) = cluster.get(f"{kind}/{name}")
    return _decoded(found) if kind == "secret" else dict(found.get("data", {}))


def _decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    return {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}


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
    return _settings(cluster)["PUBLIC_URL"]
