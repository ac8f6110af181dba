"""``python -m infra.migrations``: creates or upgrades the tables of a database and the functions' users in it."""

import os
import sys

from events.errors import Mp3burstError, with_cause
from functions.settings import BadSetting
from functions.state.database import Database, url
from infra.migrations import rights
from infra.migrations.schema import DatabaseIsNewer, upgrade
from infra.migrations.users import UsersRefused


def main() -> int:
    """Upgrades the tables and users, and prints one message to stderr if that fails.

    Returns:
        The exit status: 0, or 1 if another attempt may succeed, or 2 if none will until the settings or the version
        change.
    """
    try:
        database = Database(url(os.environ))
        upgrade(database, rights.users_key(os.environ))
        database.restore_reserve()
    except (BadSetting, DatabaseIsNewer, UsersRefused) as error:
        print(with_cause(error), file=sys.stderr)  # noqa: T201 - a command prints
        return 2
    except Mp3burstError as error:
        print(with_cause(error), file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
