"""The ConfigMaps and Secrets that knative/*.yaml refers to, from the operator's variables or generated here once."""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from functions.convert.cpus import available_cpus
from functions.convert.ffmpeg.binary import configured_ffmpeg
from functions.convert.sandbox import setting
from functions.presets import of_installation
from functions.settings import BadSetting, number, switch
from infra.migrations.rights import CONNECTION, RIGHTS, connection_of

#: The variables of each ConfigMap and Secret. They exist if the operator sets them; some have a default.
VARIABLES = {
    "mp3burst": "PUBLIC_URL LINK_DAYS KEEP_DAYS MAX_UPLOAD_BYTES UPLOAD_HOURS UPLOAD_ROLE QUOTA_JOBS QUOTA_BYTES "
    "MAX_SECONDS PRESETS TOKEN_HOURS CONFIRM_EMAIL REGISTRATIONS_PER_HOUR OIDC_ISSUER OIDC_CLIENT_ID OIDC_CREATE_USERS "
    "PROXY_LOGIN_HEADER PROXY_LOGIN_NETWORKS PROXY_LOGIN_CREATE_USERS API_KEYS TRUSTED_PROXIES WEBHOOK_NETWORKS "
    "WEBHOOK_PORTS WEBHOOK_NAT64 WEBHOOK_HANDSHAKE FETCH_URLS FETCH_NETWORKS FANOUT_SECONDS FANOUT_PIECES ENCODERS "
    "FFMPEG SANDBOX TOKEN_PUBLIC_KEYS",
    "database-owner": " ".join((*CONNECTION, "DATABASE_USERS_KEY")),
    **{f"database-{function}": " ".join(CONNECTION) for function in RIGHTS},
    "log": "LOG_KEY",
    "media": "MEDIA_DIR MONGO_URI MONGO_MP3_URI MIN_FREE_BYTES",
    "token-signing": "TOKEN_PRIVATE_KEY OIDC_CLIENT_SECRET OIDC_PROVIDERS PROXY_LOGIN_SECRET",
    "links": "LINK_KEY",
    "webhooks": "WEBHOOK_KEY",
    "mail": "MAIL_DIR SMTP_HOST SMTP_PORT SMTP_USER SMTP_PASSWORD SMTP_SECURITY SENDGRID_API_KEY SENDGRID_URL "
    "MAIL_FROM GMAIL_ADDRESS GMAIL_PASSWORD",
}

#: The variables that are numbers. The function that reads one checks its range.
_NUMBERS = (
    "LINK_DAYS KEEP_DAYS MAX_UPLOAD_BYTES UPLOAD_HOURS QUOTA_JOBS QUOTA_BYTES TOKEN_HOURS FANOUT_SECONDS FANOUT_PIECES "
    "ENCODERS MAX_SECONDS MIN_FREE_BYTES REGISTRATIONS_PER_HOUR SMTP_PORT MYSQL_PORT"
)


def check(environ: Mapping[str, str]) -> None:
    """Rejects invalid settings at the start that would otherwise go unnoticed until the first upload.

    Args:
        environ: the operator's variables.

    Raises:
        BadSetting: a number or a switch is invalid, FFMPEG, LINK_KEY or a variable of webhooks is unusable, or this
            system has no sandbox for decoders.
        events.rabbitmq.connection.BadAmqpUrl: AMQP_URL is not the URL of a RabbitMQ server.
    """
    for name in _NUMBERS.split():
        number(environ, name, 0)
    configured_ffmpeg(environ)
    setting.is_on(environ)
    switch(environ, "CONFIRM_EMAIL", default=True)
    switch(environ, "OIDC_CREATE_USERS", default=True)
    switch(environ, "FETCH_URLS", default=False)
    of_installation(environ)
    # Imported only if needed: most installations on one machine set neither.
    if environ.get("LINK_KEY"):
        from functions.auth.links import Links

        Links.from_environ(environ)
    if environ.get("WEBHOOK_KEY"):
        from functions.outgoing.signatures import Signer

        Signer.from_environ(environ)
    if environ.get("OIDC_ISSUER") or environ.get("OIDC_PROVIDERS"):
        from functions.login.provider import Providers

        Providers.from_environ({"PUBLIC_URL": "http://localhost", **environ})
    if environ.get("PROXY_LOGIN_HEADER"):
        from functions.login.proxy import ProxyLogin

        ProxyLogin.from_environ(environ)
    if any(environ.get(name) for name in ("WEBHOOK_NETWORKS", "WEBHOOK_PORTS", "WEBHOOK_NAT64", "WEBHOOK_HANDSHAKE")):
        from functions.outgoing.handshake import Handshake

        Handshake.from_environ({"PUBLIC_URL": "http://localhost", **environ})
    if environ.get("FETCH_NETWORKS"):
        from functions.outgoing.addresses import Policy

        Policy.for_fetching(environ)
    if url := environ.get("AMQP_URL"):
        from events.rabbitmq.connection import parameters

        parameters(url)


def values(environ: Mapping[str, str], data: Path, port: int) -> dict[str, dict[str, str]]:
    """Returns the ConfigMaps and Secrets by name. The operator's variables override generated ones.

    Args:
        environ: the operator's variables.
        data: the installation's directory, absolute; keys are generated in its folder ``keys``, once.
        port: the installation's.

    Raises:
        BadSetting: TOKEN_PRIVATE_KEY is not a private key, DATABASE_USERS_KEY is too short, or as in ``check``.
        events.rabbitmq.connection.BadAmqpUrl: as in ``check``.
    """
    check(environ)
    given = {name: value for name, value in environ.items() if value}
    keys = data / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    defaults = {
        "PUBLIC_URL": f"http://localhost:{port}",
        "LINK_KEY": _stored(keys / "link", lambda: secrets.token_hex(32)),
        "WEBHOOK_KEY": _stored(keys / "webhook", lambda: secrets.token_hex(32)),
        "LOG_KEY": _stored(keys / "log", lambda: secrets.token_hex(32)),
        "TOKEN_PRIVATE_KEY": given.get("TOKEN_PRIVATE_KEY") or _stored(keys / "token-private.pem", _private_key),
    }
    # All workers share the CPUs of one machine, and each further piece adds decoding work.
    defaults["FANOUT_PIECES"] = str(max(available_cpus(), 2))
    defaults["TOKEN_PUBLIC_KEYS"] = _public_key(defaults["TOKEN_PRIVATE_KEY"])
    if "MYSQL_HOST" not in given:
        defaults["DATABASE_URL"] = f"sqlite:///{quote(str(data))}/mp3burst.db"
    if not given.keys() & {"MONGO_URI", "MONGO_MP3_URI"}:
        defaults["MEDIA_DIR"] = str(data / "media")
    if not given.keys() & {"SMTP_HOST", "SENDGRID_API_KEY", "GMAIL_ADDRESS"}:
        defaults["MAIL_DIR"] = str(data / "mail")
    result = defaults | given
    found = {
        source: {name: result[name] for name in names.split() if name in result} for source, names in VARIABLES.items()
    }
    return found | {f"database-{function}": connection_of(function, result) for function in RIGHTS}


def environment(container: Mapping[str, Any], known: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Returns the variables that a container's ``env`` and ``envFrom`` resolve to.

    Args:
        container: of the manifest.
        known: the ConfigMaps and Secrets by name, of ``values``.

    Raises:
        BadSetting: something it refers to does not exist and is not optional.
    """
    result: dict[str, str] = {}
    for entry in container.get("envFrom", ()):
        ref: Any = entry.get("configMapRef") or entry.get("secretRef") or {}
        if ref.get("name") not in known and not ref.get("optional"):
            raise BadSetting(f"A manifest refers to {ref.get('name')}, which is not one of {', '.join(known)}.")
        result |= {entry.get("prefix", "") + name: value for name, value in known.get(ref["name"], {}).items()}
    for entry in container.get("env", ()):
        source = entry.get("valueFrom", {})
        ref = source.get("secretKeyRef") or source.get("configMapKeyRef") or {}
        value = known.get(ref.get("name"), {}).get(ref.get("key")) if source else str(entry.get("value", ""))
        if value is not None:
            result[entry["name"]] = value
        elif not ref.get("optional"):
            raise BadSetting(f"A manifest refers to a value that does not exist, for {entry['name']}: {source}.")
    return result


def _stored(path: Path, generate: Callable[[], str]) -> str:
    # Renamed once it is complete, so that a crash leaves no truncated key.
    if not path.exists():
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(generate())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    return path.read_text()


def _private_key() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public_key(private: str) -> str:
    try:
        key = load_pem_private_key(private.encode(), None).public_key()
    except (ValueError, TypeError) as error:
        raise BadSetting(
            "TOKEN_PRIVATE_KEY is not a private key in PEM format: set it to an Ed25519 key in PKCS 8."
        ) from error
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
