"""What the functions are told: the cluster's ConfigMaps and Secrets, on this machine.

A function gets what its manifest names, and nothing else of this process's environment but PATH and its like.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from functions.settings import BadSetting
from infra.local.manifests import BadManifest, Function

#: What a function inherits.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
#: The variables of each ConfigMap and Secret that are there where the operator sets them.
_SETTABLE = {
    "mp3burst": "PUBLIC_URL LINK_DAYS KEEP_DAYS MAX_UPLOAD_BYTES UPLOAD_ROLE TOKEN_HOURS TRUSTED_PROXIES "
    "FANOUT_SECONDS TOKEN_PUBLIC_KEYS",
    "database": "DATABASE_URL MYSQL_HOST MYSQL_USER MYSQL_PASSWORD MYSQL_DB MYSQL_PORT",
    "media": "MEDIA_DIR MONGO_URI MONGO_MP3_URI",
    "token-signing": "TOKEN_PRIVATE_KEY",
    "links": "LINK_KEY",
    "mail": "MAIL_DIR SMTP_HOST SMTP_PORT SMTP_USER SMTP_PASSWORD SMTP_SECURITY SENDGRID_API_KEY SENDGRID_URL "
    "MAIL_FROM GMAIL_ADDRESS GMAIL_PASSWORD",
}


def sources(environ: Mapping[str, str], data: Path, port: int) -> dict[str, dict[str, str]]:
    """The ConfigMaps and Secrets by name. What the operator set goes before what is made here.

    Args:
        environ: the operator's variables.
        data: the platform's directory; keys are made in ``keys`` of it, once.
        port: where the platform is reached.

    Raises:
        BadSetting: TOKEN_PRIVATE_KEY is no key.
    """
    found = {
        source: {name: environ[name] for name in names.split() if environ.get(name)}
        for source, names in _SETTABLE.items()
    }
    keys = data / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    private = found["token-signing"].setdefault(
        "TOKEN_PRIVATE_KEY", _kept(keys / "token-private.pem", _new_private_key)
    )
    found["links"].setdefault("LINK_KEY", _kept(keys / "link", lambda: secrets.token_hex(32)))
    found["mp3burst"].setdefault("PUBLIC_URL", f"http://localhost:{port}")
    found["mp3burst"].setdefault("TOKEN_PUBLIC_KEYS", _public_key(private))
    if not found["database"].keys() & {"DATABASE_URL", "MYSQL_HOST"}:
        found["database"]["DATABASE_URL"] = f"sqlite:///{data}/mp3burst.db"
    if not found["media"].keys() & {"MEDIA_DIR", "MONGO_URI", "MONGO_MP3_URI"}:
        found["media"]["MEDIA_DIR"] = str(data / "media")
    if not found["mail"].keys() & {"MAIL_DIR", "SMTP_HOST", "SENDGRID_API_KEY", "GMAIL_ADDRESS"}:
        found["mail"]["MAIL_DIR"] = str(data / "mail")
    return found


def environment(
    function: Function, known: Mapping[str, Mapping[str, str]], root: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a function's processes.

    Args:
        function: whose.
        known: the ConfigMaps and Secrets by name.
        root: the directory that holds our packages.
        environ: this process's variables.

    Raises:
        BadManifest: the function wants something that nobody has.
    """
    result = {name: environ[name] for name in _INHERITED if name in environ}
    result["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), environ.get("PYTHONPATH"))))
    for entry in function.env_from:
        prefix, ref = entry.get("prefix", ""), entry.get("configMapRef") or entry["secretRef"]
        if ref["name"] not in known and not ref.get("optional"):
            raise BadManifest(f"{function.name} wants {ref['name']}, which is none of {', '.join(known)}.")
        result |= {prefix + name: value for name, value in known.get(ref["name"], {}).items()}
    for entry in function.env:
        if "valueFrom" not in entry:
            result[entry["name"]] = str(entry.get("value", ""))
            continue
        ref = entry["valueFrom"].get("secretKeyRef") or entry["valueFrom"].get("configMapKeyRef")
        if not ref:
            raise BadManifest(f"{function.name} wants {entry['name']} from a place that only a cluster has.")
        value = known.get(ref["name"], {}).get(ref["key"])
        if value is not None:
            result[entry["name"]] = value
        elif not ref.get("optional"):
            raise BadManifest(f"{function.name} wants {ref['key']} of {ref['name']}, which is not set.")
    return result


def _kept(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    return path.read_text()


def _new_private_key() -> str:
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def _public_key(private: str) -> str:
    try:
        key = serialization.load_pem_private_key(private.encode(), None)
    except (ValueError, TypeError) as error:
        raise BadSetting("TOKEN_PRIVATE_KEY is not a private key in PEM: give it an Ed25519 key in PKCS 8.") from error
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
