"""What each function may do in the SQL database, and the database user that it does it as.

A function whose secrets leak, or whose code is taken over, can do no more than its row here: only login and account
read password hashes, for example. The migrations create the users and grant the rights (``infra.migrations.users``).
docs/architecture.md shows the same table.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from functions.settings import BadSetting

#: Whoever locks a row with SELECT ... FOR UPDATE needs the right to update a column of it, in PostgreSQL and in MySQL.
#: The date of a registration is the least harmful: nothing depends on it.
_LOCK_USER: Final = "SELECT (id, quota_bytes, quota_jobs, role), UPDATE (created_at)"
#: Of whoever identifies the user of a token or an API key (``functions.auth.identification``).
_IDENTIFY: Final = {
    "users": "SELECT (deleted_at, id, locked_at, role, token_version, username)",
    "api_keys": "SELECT (digest, expires_at, id, owner, scopes, used_at), UPDATE (used_at)",
    "ended_tokens": "SELECT (expires_at, id, owner)",
    "sessions": "SELECT (id, used_at), UPDATE (used_at)",
}
_WRITE_BLOBS: Final = "SELECT, INSERT, UPDATE (expires_at, size), DELETE"
#: Recording a mail, and postponing it once its event is published.
_ADD_MAIL: Final = "SELECT (id, attempts, due_at), INSERT, UPDATE (due_at)"

#: Counting what is done; only sweep and metrics read it.
_COUNT: Final = "INSERT"
#: Ending a job: its mail, its deliveries to webhooks, and counting it.
_END_JOB: Final = {
    "mails": _ADD_MAIL,
    "webhooks": "SELECT (id, owner, state, url)",
    "deliveries": "SELECT (id, attempts, due_at), INSERT, UPDATE (due_at)",
    "counters": _COUNT,
}

#: Asking to confirm an address: counting the user's mails, and what the mailbox has used of its allowance.
_ASK_TO_CONFIRM: Final = {
    "logins": "SELECT, INSERT, UPDATE (clears_at, locked_until)",
    "mails": "SELECT (id, attempts, due_at, owner), INSERT, UPDATE (due_at)",
}

#: By function and table, as GRANT has it. A function that is not here has no user.
#: During a rolling update the functions of the previous version work with the rights of the new one: remove a right one
#: version after its last use.
RIGHTS: Final[dict[str, dict[str, str]]] = {
    "register": {
        "users": "SELECT (id, username), INSERT",
        **_ASK_TO_CONFIRM,
    },
    "login": {
        "users": "SELECT, INSERT, UPDATE (password_hash, token_version)",
        "logins": "SELECT, INSERT, UPDATE, DELETE",
        "external_logins": "SELECT (id, owner), INSERT",
        "sessions": "SELECT (id, owner, token_version), INSERT, DELETE",
        "ended_tokens": "SELECT (owner), DELETE",
    },
    "confirm": {
        **_IDENTIFY,
        "users": "SELECT (confirmed_at, deleted_at, email, id, locked_at, role, token_version, unsubscribed_at, "
        "username), UPDATE (confirmed_at, unsubscribed_at)",
        **_ASK_TO_CONFIRM,
    },
    "account": {
        "users": "SELECT, UPDATE (confirmed_at, deleted_at, email, name, password_hash, token_version, username)",
        "logins": "SELECT, INSERT, UPDATE, DELETE",
        "api_keys": "SELECT, INSERT, UPDATE (used_at), DELETE",
        "ended_tokens": "SELECT, INSERT, DELETE",
        "sessions": "SELECT, UPDATE (used_at), DELETE",
        "external_logins": "SELECT (created_at, id, owner, provider), DELETE",
        "shared_links": "SELECT (owner), DELETE",
        "feeds": "SELECT (owner), DELETE",
        "presets": "SELECT, INSERT, DELETE",
        "jobs": "SELECT (id, mp3, owner, sound, state), UPDATE (due_at), DELETE",
        "pieces": "SELECT (job), DELETE",
        "mails": "SELECT (attempts, due_at, id, job, owner), INSERT, UPDATE (due_at), DELETE",
        "webhooks": "SELECT (owner), DELETE",
        "deliveries": "SELECT (job, owner, webhook), DELETE",
        "blobs": "SELECT (expires_at, id, job, owner, size, store), UPDATE (expires_at)",
    },
    "validate": _IDENTIFY,
    "upload": {
        **_IDENTIFY,
        "users": "SELECT (deleted_at, id, locked_at, quota_bytes, quota_jobs, role, token_version, username), "
        "UPDATE (created_at)",
        "logins": "SELECT, INSERT, UPDATE (clears_at, locked_until)",
        "jobs": "SELECT, INSERT, UPDATE (due_at)",
        "blobs": _WRITE_BLOBS,
        "uploads": "SELECT, INSERT, UPDATE, DELETE",
        "presets": "SELECT",
    },
    "status": {
        **_IDENTIFY,
        "jobs": "SELECT, UPDATE (due_at), DELETE",
        "pieces": "SELECT (job), DELETE",
        "mails": "SELECT (job), DELETE",
        "deliveries": "SELECT (job), DELETE",
        "blobs": "SELECT (id, job), UPDATE (expires_at)",
        "presets": "SELECT",
    },
    "download": {
        **_IDENTIFY,
        "users": "SELECT (confirmed_at, created_at, deleted_at, email, id, locked_at, name, quota_bytes, quota_jobs, "
        "role, token_version, username), UPDATE (created_at)",
        "api_keys": "SELECT, UPDATE (used_at)",
        "sessions": "SELECT, UPDATE (used_at)",
        "shared_links": "SELECT, INSERT, DELETE",
        "feeds": "SELECT (created_at, digest, owner), INSERT, DELETE",
        "external_logins": "SELECT (created_at, id, owner, provider)",
        "webhooks": "SELECT",
        "presets": "SELECT",
        "jobs": "SELECT",
    },
    "edit": {
        **_IDENTIFY,
        "users": "SELECT (deleted_at, id, locked_at, quota_bytes, quota_jobs, role, token_version, username), "
        "UPDATE (created_at)",
        "jobs": "SELECT, INSERT, UPDATE (filename, mp3_crc32, mp3_size, sound_at, tag)",
        "blobs": "SELECT, INSERT, UPDATE (expires_at, job, size), DELETE",
        "counters": _COUNT,
    },
    "convert": {
        "users": _LOCK_USER,
        "jobs": "SELECT, UPDATE",
        "pieces": "SELECT, INSERT, UPDATE (due_at, deferred_at, lease, lease_until), DELETE",
        **_END_JOB,
        "blobs": _WRITE_BLOBS,
    },
    "encode": {
        "users": _LOCK_USER,
        "jobs": "SELECT, UPDATE",
        "pieces": "SELECT, UPDATE, DELETE",
        **_END_JOB,
        "blobs": _WRITE_BLOBS,
    },
    "join": {
        "users": _LOCK_USER,
        "jobs": "SELECT, UPDATE",
        "pieces": "SELECT, DELETE",
        **_END_JOB,
        "blobs": _WRITE_BLOBS,
    },
    "fetch": {
        "users": _LOCK_USER,
        "jobs": "SELECT, UPDATE (attempts, deferred_at, done, due_at, error, error_code, fetched_at, fetching, "
        "filename, finished_at, lease, lease_until, size, stage_at, state, total)",
        "pieces": "SELECT (job), DELETE",
        **_END_JOB,
        "blobs": "SELECT, UPDATE (expires_at, size)",
    },
    "notify": {
        "users": "SELECT (id, confirmed_at, deleted_at, email, locked_at, name, token_version, unsubscribed_at)",
        "jobs": "SELECT",
        "mails": "SELECT, UPDATE",
        "counters": _COUNT,
    },
    "sweep": {
        "users": "SELECT (deleted_at, id), DELETE",
        "logins": "SELECT (clears_at, locked_until, subject), DELETE",
        "api_keys": "SELECT (owner), DELETE",
        "ended_tokens": "SELECT (expires_at, id, owner), DELETE",
        "sessions": "SELECT (expires_at, id, owner), DELETE",
        "external_logins": "SELECT (owner), DELETE",
        "shared_links": "SELECT (expires_at, id, owner), DELETE",
        "feeds": "SELECT (owner), DELETE",
        "presets": "SELECT (owner), DELETE",
        "jobs": "SELECT, UPDATE, DELETE",
        "pieces": "SELECT, UPDATE (due_at, deferred_at, lease, lease_until), DELETE",
        "mails": "SELECT, INSERT, UPDATE, DELETE",
        "webhooks": "SELECT (id, owner, state, url), DELETE",
        "deliveries": "SELECT, INSERT, UPDATE (due_at), DELETE",
        "blobs": "SELECT, UPDATE (expires_at), DELETE",
        "uploads": "SELECT (blob), DELETE",
        "disks": "SELECT, INSERT, UPDATE, DELETE",
        "counters": "SELECT, INSERT, DELETE",
    },
    "bury": {
        "jobs": "SELECT, UPDATE (due_at)",
        "pieces": "SELECT, UPDATE (due_at)",
        "mails": "SELECT, UPDATE (due_at)",
        "deliveries": "SELECT, UPDATE (due_at)",
        "disks": "SELECT",
        "counters": _COUNT,
    },
    "webhooks": {
        **_IDENTIFY,
        "users": "SELECT (deleted_at, id, locked_at, role, token_version, username), UPDATE (created_at)",
        "logins": "SELECT, INSERT, UPDATE (clears_at, locked_until)",
        "webhooks": "SELECT, INSERT, UPDATE (state), DELETE",
        "deliveries": "SELECT, INSERT, UPDATE (attempts, due_at, lease, lease_until, state), DELETE",
    },
    "admin": {
        **_IDENTIFY,
        "users": "SELECT (confirmed_at, created_at, deleted_at, email, id, locked_at, name, quota_bytes, quota_jobs, "
        "role, token_version, username), UPDATE (deleted_at, locked_at, quota_bytes, quota_jobs, role, token_version)",
        "jobs": "SELECT (attempts, cpu_ms, created_at, deferred_at, due_at, duration, error, finished_at, id, lease, "
        "lease_until, mp3_size, owner, pods, size, started_at, state, warning), UPDATE (due_at, lease_until)",
        "pieces": "SELECT (attempts, created_at, deferred_at, due_at, lease, lease_until, state), "
        "UPDATE (due_at, lease_until)",
        "mails": "SELECT (attempts, created_at, due_at, lease, lease_until, state), UPDATE (due_at, lease_until)",
        "deliveries": "SELECT (attempts, created_at, due_at, lease, lease_until, state), UPDATE (due_at, lease_until)",
        "blobs": "SELECT (expires_at, id, job, owner, size, store)",
        "disks": "SELECT",
    },
    "hook": {
        "jobs": "SELECT",
        "webhooks": "SELECT (calls, free_at, id, rate, state), UPDATE (calls, free_at, state)",
        "deliveries": "SELECT, UPDATE",
        "counters": _COUNT,
    },
    "metrics": {
        **_IDENTIFY,
        "jobs": "SELECT (attempts, created_at, deferred_at, due_at, fetched_at, finished_at, lease, lease_until, "
        "stage_at, state)",
        "pieces": "SELECT (attempts, created_at, deferred_at, due_at, lease, lease_until, state)",
        "mails": "SELECT (attempts, created_at, due_at, lease, lease_until)",
        "deliveries": "SELECT (attempts, created_at, due_at, lease, lease_until)",
        "blobs": "SELECT (expires_at, size, store)",
        "disks": "SELECT",
        "counters": "SELECT (amount, counted_at, series)",
    },
}

#: The variables that name a database, its user and the user's password.
CONNECTION: Final = ("DATABASE_URL", "MYSQL_HOST", "MYSQL_PORT", "MYSQL_USER", "MYSQL_PASSWORD", "MYSQL_DB")
#: The value of DATABASE_USERS_KEY with which all functions use the owner.
OFF: Final = "off"
_MIN_KEY: Final = 32  # characters
#: Of users, also of MySQL.
_NAME: Final = re.compile(r"[\w$-]{1,32}", re.ASCII)
_RIGHT: Final = re.compile(r"([A-Z]+)(?: \(([a-z0-9_, ]+)\))?")
#: SCHEME://[USER[:PASSWORD]@]HOST/DATABASE[?OPTIONS]; infra/secrets.sh has the same.
_URL: Final = re.compile(r"([a-z0-9+]+://)(?:[^:/@]*(?::[^@]*)?@)?([^/?]*/([^/?]*)(?:\?.*)?)")


class Right(NamedTuple):
    """One right on a table: SELECT, INSERT, UPDATE or DELETE, of some columns or, if there are none, of all."""

    verb: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FunctionUser:
    """The database user of a function."""

    function: str
    name: str
    password: str


def parse(rights: str) -> list[Right]:
    """Returns the rights that a text of ``RIGHTS`` lists."""
    return [Right(verb, tuple(re.findall(r"\w+", columns))) for verb, columns in _RIGHT.findall(rights)]


def users(database: str, key: str) -> list[FunctionUser]:
    """Returns the user of every function that has one, for a database of this name.

    Args:
        database: users belong to the whole server, so their names begin with the database's.
        key: DATABASE_USERS_KEY, from which the passwords follow. Nobody learns it, or another function's password, from
            a password.

    Raises:
        BadSetting: the key is too short, or the name has other characters than a user's may have.
    """
    if len(key) < _MIN_KEY:
        raise BadSetting(f"DATABASE_USERS_KEY has fewer than {_MIN_KEY} characters: openssl rand -hex 32 makes one.")
    found = [
        FunctionUser(function, f"{database}_{function}", hashlib.sha256(f"{function}:{key}".encode()).hexdigest())
        for function in RIGHTS
    ]
    if not all(_NAME.fullmatch(user.name) for user in found):
        raise BadSetting(
            f"The functions' users cannot be named after the database {database}: use a name of at most 23 letters, "
            "digits, - and _, or set DATABASE_USERS_KEY=off."
        )
    return found


def users_key(environ: Mapping[str, str]) -> str | None:
    """Returns DATABASE_USERS_KEY, or None if all functions use the owner: it is not set, is off, or SQLite is used."""
    key = environ.get("DATABASE_USERS_KEY", "")
    return None if key in ("", OFF) or environ.get("DATABASE_URL", "").startswith("sqlite") else key


def connection_of(function: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables by which a function connects to the database.

    Args:
        function: its name.
        environ: the variables by which the owner connects, and DATABASE_USERS_KEY.

    Raises:
        BadSetting: as ``users`` does, or DATABASE_URL does not name a database.
    """
    owner = {name: environ[name] for name in CONNECTION if environ.get(name)}
    key = users_key(environ)
    if key is None:
        return owner
    parts = _URL.fullmatch(owner.get("DATABASE_URL", ""))
    if owner.get("DATABASE_URL") and (parts is None or not parts[3]):
        raise BadSetting("DATABASE_URL names no database: use DIALECT://USER:PASSWORD@HOST/NAME.")
    database = parts[3] if parts else owner.get("MYSQL_DB", "")
    (user,) = (each for each in users(database, key) if each.function == function)
    if parts:  # it takes precedence over the other variables, which may have the owner's password
        return {"DATABASE_URL": f"{parts[1]}{user.name}:{user.password}@{parts[2]}"}
    return {**owner, "MYSQL_USER": user.name, "MYSQL_PASSWORD": user.password}
