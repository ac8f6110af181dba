"""Requests to reset a forgotten password."""

import secrets
from typing import Final

from sqlalchemy import Connection, select

from events.schema import PasswordForgotten
from functions.auth.accounts import normalize_username
from functions.auth.allowance import AllowanceUsedUp, by_network, resets, use
from functions.state.database import Conflict, Database
from functions.state.mails import offer_reset
from functions.state.schema import users

#: Requests from one network at once, and in every further hour.
REQUESTS_PER_HOUR: Final = 10
_TOO_MANY: Final = "Too many requests from your network to reset a password"


class Resets:
    """The tables, as a request to reset a password uses them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def offer(self, username: str, address: str) -> PasswordForgotten:
        """Creates the mail with the link that resets the user's password.

        For a username that nobody has, and for a mailbox that got too many of these mails, a mail to nobody is created:
        the same statements run, so the time of the response tells neither whether there is such a user nor whether
        two usernames have one address. notify skips this mail, and sweep deletes it.

        Args:
            username: as typed.
            address: the client's, for which the request is counted.

        Returns:
            The event to emit.

        Raises:
            AllowanceUsedUp: there were too many requests from the client's network.
        """
        name = normalize_username(username).replace("\0", "")
        number = secrets.randbelow(2**31)
        nobody = secrets.token_hex(16)

        def offer(connection: Connection) -> PasswordForgotten:
            allowances = by_network("resets", address, REQUESTS_PER_HOUR)
            if wait := use(connection, allowances):
                raise AllowanceUsedUp(_TOO_MANY, wait, "resets", allowances)
            found = select(users.c.id, users.c.email).where(users.c.username == name, users.c.deleted_at.is_(None))
            row = connection.execute(found).one_or_none()
            is_refused = use(connection, resets(row.email if row is not None else name), is_uniform=True)
            event = PasswordForgotten(nobody if row is None or is_refused else row.id, number)
            offer_reset(connection, event)
            return event

        try:
            return self._database.run(offer)
        except Conflict:
            # Another request was first to insert what the network or the mailbox has used of its allowance.
            return self._database.run(offer)
