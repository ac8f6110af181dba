"""Creates the database user of each function, with the rights of ``infra.migrations.rights`` and no others."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from events.errors import Mp3burstError
from infra.migrations.rights import RIGHTS, FunctionUser, Right, parse, users

#: PostgreSQL: insufficient_privilege.
_REFUSED_SQLSTATE: Final = "42501"
#: MySQL, MariaDB: access denied to a database, a command on a table, a column, an operation; no right to create users.
_REFUSED_CODES: Final = {1044, 1142, 1143, 1227, 1410}


class UsersNotCreated(Mp3burstError):
    """Creating the functions' users failed; another attempt may succeed."""


class UsersRefused(Mp3burstError):
    """The owner of the database may not create users or grant rights; another attempt will not change that."""


def provide(connection: Connection, key: str) -> None:
    """Creates the users that do not exist, sets their passwords and makes their rights what the table says.

    On PostgreSQL this is part of the caller's transaction. On MySQL and MariaDB rights are granted before others are
    revoked, so that running functions notice nothing; an owner who cannot read the database ``mysql`` revokes none.

    Args:
        connection: the owner's; no other migration runs.
        key: DATABASE_USERS_KEY.

    Raises:
        BadSetting: the key is too short, or the database's name too long.
        UsersRefused: the owner lacks a right.
        UsersNotCreated: a statement failed for another reason.
    """
    database = connection.engine.url.database or ""
    try:
        if connection.dialect.name == "postgresql":
            _postgresql(connection, users(database, key))
        elif connection.dialect.name in ("mysql", "mariadb"):
            _mysql(connection, users(database, key))
    except DBAPIError as error:
        # Not from ``error``, whose text has the statement: it may contain a password.
        code = error.orig.args[0] if error.orig is not None and error.orig.args else None
        if code in _REFUSED_CODES or getattr(error.orig, "sqlstate", None) == _REFUSED_SQLSTATE:
            raise UsersRefused(
                "The database's owner may not create users or grant rights: give it CREATEROLE (PostgreSQL), or CREATE "
                "USER and GRANT OPTION (MySQL); or set DATABASE_USERS_KEY=off, and all functions use the owner."
            ) from error.orig
        raise UsersNotCreated("Creating the database's users failed: see the cause.") from error.orig


def _postgresql(connection: Connection, wanted: Sequence[FunctionUser]) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    schema = quote(str(connection.scalar(text("SELECT current_schema()"))))
    database = quote(str(connection.scalar(text("SELECT current_database()"))))
    existing = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
    driver: Any = connection.connection.driver_connection
    run = connection.exec_driver_sql
    # Before PostgreSQL 15 everybody may create tables. Temporary ones need no right that a function has.
    run(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC")
    run(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    run(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC")
    for user in wanted:
        role = quote(user.name)
        # The server gets the SCRAM verifier only: it may log statements.
        verifier = driver.pgconn.encrypt_password(user.password.encode(), user.name.encode(), b"scram-sha-256").decode()
        command = "ALTER" if user.name in existing else "CREATE"
        run(f"{command} ROLE {role} LOGIN PASSWORD '{verifier}'")
        run(f"GRANT CONNECT ON DATABASE {database} TO {role}")
        run(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        # This includes the rights on columns.
        run(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}")
        for table, rights in RIGHTS[user.function].items():
            run(f"GRANT {_listed(parse(rights), quote)} ON {schema}.{quote(table)} TO {role}")


def _mysql(connection: Connection, wanted: Sequence[FunctionUser]) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    run = connection.exec_driver_sql
    for user in wanted:
        account = f"'{user.name}'@'%%'"
        run(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY %s", (user.password,))
        run(f"ALTER USER {account} IDENTIFIED BY %s", (user.password,))
        if _has_more_than_tables(connection, user):
            run(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account}")
        rights = {
            (table, right.verb, column)
            for table, listed in RIGHTS[user.function].items()
            for right in parse(listed)
            for column in right.columns or ("",)
        }
        granted = _granted(connection, user)
        for table, verb, column in sorted(rights - granted):
            run(f"GRANT {verb}{f' ({quote(column)})' if column else ''} ON {quote(table)} TO {account}")
        for table, verb, column in sorted(granted - rights):
            run(f"REVOKE {verb}{f' ({quote(column)})' if column else ''} ON {quote(table)} FROM {account}")


def _has_more_than_tables(connection: Connection, user: FunctionUser) -> bool:
    """Returns whether the user has rights on the server or on a whole database."""
    query = text(
        "SELECT COUNT(*) FROM (SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES UNION ALL "
        "SELECT GRANTEE, PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES) AS found "
        "WHERE GRANTEE = :grantee AND PRIVILEGE_TYPE <> 'USAGE'"
    )
    return bool(connection.scalar(query, {"grantee": f"'{user.name}'@'%'"}))


def _granted(connection: Connection, user: FunctionUser) -> set[tuple[str, str, str]]:
    """Returns the user's rights as (table, verb, column); the column is empty for a right on the whole table."""
    query = text(
        "SELECT TABLE_NAME, PRIVILEGE_TYPE, '' FROM information_schema.TABLE_PRIVILEGES "
        "WHERE GRANTEE = :grantee AND TABLE_SCHEMA = DATABASE() AND PRIVILEGE_TYPE <> 'USAGE' UNION ALL "
        "SELECT TABLE_NAME, PRIVILEGE_TYPE, COLUMN_NAME FROM information_schema.COLUMN_PRIVILEGES "
        "WHERE GRANTEE = :grantee AND TABLE_SCHEMA = DATABASE()"
    )
    rows = connection.execute(query, {"grantee": f"'{user.name}'@'%'"})
    return {(table, verb, column) for table, verb, column in rows}


def _listed(rights: Iterable[Right], quote: Any) -> str:
    """Returns the rights as GRANT lists them."""
    return ", ".join(
        right.verb + (f" ({', '.join(map(quote, right.columns))})" if right.columns else "") for right in rights
    )
