"""``python -m infra.migrations``: create or upgrade the tables of the database that the environment names."""

import os
import sys

from events.errors import Mp3burstError, with_cause
from functions.database import Database, url
from infra.migrations.schema import upgrade


def main() -> int:
    """Upgrade; exit status 0, or 1 with one sentence on stderr."""
    try:
        upgrade(Database(url(os.environ)))
    except Mp3burstError as error:
        print(with_cause(error), file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
