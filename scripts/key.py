"""Makes an API key that acts as a user, for API_KEYS: prints the key, which is stored nowhere, and its entry."""

import argparse
import sys
from pathlib import Path

from events.errors import Mp3burstError, with_cause
from functions.auth.accounts import Accounts
from functions.auth.keys import SCOPES, in_order, new_key
from functions.auth.stored_secrets import digest
from scripts.admin import database_of


def main() -> int:
    """Returns the exit status: 0 if a key was made, 1 with a message otherwise."""
    parser = argparse.ArgumentParser(prog="scripts/key", description=__doc__)
    parser.add_argument("username")
    parser.add_argument("scopes", nargs="+", choices=SCOPES, metavar="SCOPE", help=", ".join(SCOPES))
    data = Path(__file__).resolve().parents[1] / "data"
    parser.add_argument(
        "--data", type=Path, default=data, metavar="DIR", help="the data directory of the embedded platform (data)"
    )
    arguments = parser.parse_args()
    try:
        user = Accounts(database_of(arguments.data)).id_of(arguments.username)
    except Mp3burstError as error:
        print(with_cause(error), file=sys.stderr)
        return 1
    if user is None:
        print(f"There is no user {arguments.username}: register first.", file=sys.stderr)
        return 1
    key = new_key()
    print(f"The key, for the program that uses it:\n{key}")
    print(f"Its entry, for API_KEYS:\n{digest(key)}:{user}:{'+'.join(in_order(arguments.scopes))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
