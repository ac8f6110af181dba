"""Which users have confirmed their address, and which of them want mails about their jobs."""

from sqlalchemy import Connection, select, update

from events.schema import AddressUnconfirmed
from functions.auth.allowance import AllowanceUsedUp, confirmations, use
from functions.auth.links import BadLink, Confirmation
from functions.auth.tokens import NotAuthenticated
from functions.state.database import Conflict, Database
from functions.state.mails import ask_to_confirm
from functions.state.schema import UserId, mails, now, users


class Confirmations:
    """The users table, as confirm uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def confirm(self, confirmation: Confirmation) -> str:
        """Records that the user has confirmed the address. Once it is recorded, nothing more happens.

        Returns:
            The username.

        Raises:
            BadLink: the user was deleted or has another address now.
        """

        def confirm(connection: Connection) -> str | None:
            found = select(users.c.username, users.c.email).where(users.c.id == confirmation.user)
            row = connection.execute(found).one_or_none()
            if row is None or not confirmation.is_for(row.email):
                return None
            mine = users.c.id == confirmation.user, users.c.email == row.email
            connection.execute(update(users).where(*mine, users.c.confirmed_at.is_(None)).values(confirmed_at=now()))
            return str(row.username)

        username = self._database.run(confirm)
        if username is None:
            raise BadLink("This link is for an address that is no longer in use: log in and ask for a new link.")
        return username

    def ask_again(self, user: UserId) -> AddressUnconfirmed | None:
        """Creates another mail that asks the user to confirm the address.

        Returns:
            The event to emit, or None if the address is confirmed already.

        Raises:
            AllowanceUsedUp: the address got too many of these mails.
            NotAuthenticated: the user was deleted.
        """
        asked: list[AddressUnconfirmed] = []

        def ask(connection: Connection) -> AddressUnconfirmed | None:
            mine = users.c.id == user, users.c.deleted_at.is_(None)
            found = select(users.c.email, users.c.confirmed_at).where(*mine).with_for_update()
            row = connection.execute(found).one_or_none()
            if row is None:
                raise NotAuthenticated("Your account no longer exists: register again.")
            if row.confirmed_at is not None:
                return None
            if asked and connection.scalar(select(mails.c.id).where(mails.c.id == asked[-1].id)):
                return asked[-1]  # an earlier try was committed, and only its confirmation was lost
            allowances = confirmations(row.email)
            if wait := use(connection, allowances):
                raise AllowanceUsedUp("Too many emails to confirm this address", wait, "confirmations", allowances)
            asked.append(ask_to_confirm(connection, user))
            return asked[-1]

        try:
            return self._database.run(ask)
        except Conflict:
            # Another user with this address was first to insert what the address has used of its allowance.
            return self._database.run(ask)

    def set_subscribed(self, user: UserId, is_subscribed: bool) -> str | None:
        """Records whether the user wants mails about jobs. Setting what is set already changes nothing.

        Returns:
            The username; None if the user was deleted.
        """
        unsubscribed_at = None if is_subscribed else now()
        differs = users.c.unsubscribed_at.is_not(None) if is_subscribed else users.c.unsubscribed_at.is_(None)
        statement = update(users).where(users.c.id == user, differs).values(unsubscribed_at=unsubscribed_at)

        def change(connection: Connection) -> str | None:
            connection.execute(statement)
            return connection.scalar(select(users.c.username).where(users.c.id == user))

        return self._database.run(change)
