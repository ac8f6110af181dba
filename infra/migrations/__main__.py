"""``python -m infra.migrations``: create or upgrade the tables of the database that the environment names."""

import os
import sys

from events.errors import Mp3burstError, with_cause
from functions.settings import BadSetting
from functions.state.database import Database, url
from infra.migrations.schema import DatabaseIsNewer, upgrade


def main() -> int:
    """Upgrade.

    Returns:
        The exit status, where it is not 0 with one sentence on stderr: 1, another try may succeed; 2, none will until
        somebody changes the settings or the version.
    """
    try:
        upgrade(Database(url(os.environ)))
    except (BadSetting, DatabaseIsNewer) as error:
        print(with_cause(error), file=sys.stderr)  # noqa: T201 - a command prints
        return 2
    except Mp3burstError as error:
        print(with_cause(error), file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
