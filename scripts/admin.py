"""Makes a user an administrator, or an ordinary user again."""

import argparse
import os
import sys
from pathlib import Path
from urllib.parse import quote

from events.errors import Mp3burstError, with_cause
from functions.auth.accounts import Accounts
from functions.auth.administration import Administration
from functions.state.database import Database, url


class NoDatabase(Mp3burstError):
    """The data directory has no database, and no variable names another."""


def main() -> int:
    """Returns the exit status: 0 if the user has the role now, 1 with a message otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/admin", description=__doc__)
    parser.add_argument("username")
    data = Path(__file__).resolve().parents[1] / "data"
    parser.add_argument(
        "--data", type=Path, default=data, metavar="DIR", help="the data directory of the embedded platform (data)"
    )
    parser.add_argument("--revoke", action="store_true", help="make an administrator an ordinary user again")
    arguments = parser.parse_args()
    role = "user" if arguments.revoke else "admin"
    try:
        database = database_of(arguments.data)
        user = Accounts(database).id_of(arguments.username)
        if user is not None:
            Administration(database).change(user, None, role=role)
    except Mp3burstError as error:
        print(with_cause(error), file=sys.stderr)
        return 1
    if user is None:
        print(f"There is no user {arguments.username}: register first.", file=sys.stderr)
        return 1
    print(f"{arguments.username} now has the role {role}. It takes effect within 30 seconds.")
    return 0


def database_of(data: Path) -> Database:
    """Returns the database that DATABASE_URL or MYSQL_* select, or that of the embedded platform in this directory.

    Raises:
        NoDatabase: there is none.
        BadSetting: a variable is invalid.
    """
    if os.environ.get("DATABASE_URL") or os.environ.get("MYSQL_HOST"):
        return Database(url(os.environ))
    return database_in(data)


def database_in(data: Path) -> Database:
    """Returns the database of the embedded platform in this directory.

    Raises:
        NoDatabase: there is none.
    """
    file = data.resolve() / "mp3burst.db"
    if not file.exists():
        raise NoDatabase(f"There is no database in {data}: start mp3burst once, or set DATABASE_URL.")
    return Database(url({"DATABASE_URL": f"sqlite:///{quote(str(file))}"}))


if __name__ == "__main__":
    sys.exit(main())
