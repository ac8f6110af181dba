"""Builds what account uses from the environment."""

import functools
import os
from dataclasses import dataclass

from events.publish import publisher
from functions.auth.accounts import Accounts
from functions.auth.external_logins import ExternalLogins
from functions.auth.keys import ApiKeys
from functions.auth.links import Links
from functions.auth.profiles import Profiles
from functions.auth.resets import Resets
from functions.auth.sessions import EndedTokens, Sessions
from functions.auth.throttle import Throttle
from functions.presets import of_installation
from functions.settings import switch
from functions.state.database import Database, shared
from functions.state.deleted_users import DeletedUsers
from functions.state.outbox import Outbox
from functions.state.presets import Presets
from functions.state.quota import Quota


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What account uses.

    Attributes:
        database: what the user has stored.
        profiles: the users.
        accounts: their passwords.
        throttle: limits guesses of them.
        keys: their API keys.
        ended: their tokens that were logged out.
        sessions: their logins.
        logins: what else than the password logs them in.
        deleted: the users who are being deleted.
        quota: what a user may store.
        resets: requests to reset a password.
        links: verifies the links that reset one.
        outbox: emits the events of mails.
        presets: the presets of users.
        confirms: whether another address has to be confirmed.
    """

    database: Database
    profiles: Profiles
    accounts: Accounts
    throttle: Throttle
    keys: ApiKeys
    ended: EndedTokens
    sessions: Sessions
    logins: ExternalLogins
    deleted: DeletedUsers
    quota: Quota
    resets: Resets
    links: Links
    outbox: Outbox
    presets: Presets
    confirms: bool = True


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or malformed.
    """
    database = shared(os.environ)
    return Dependencies(
        database=database,
        profiles=Profiles(database),
        accounts=Accounts(database),
        throttle=Throttle(database),
        keys=ApiKeys(database),
        ended=EndedTokens(database),
        sessions=Sessions(database),
        logins=ExternalLogins(database),
        deleted=DeletedUsers(database),
        quota=Quota.from_environ(os.environ),
        resets=Resets(database),
        links=Links.from_environ(os.environ),
        outbox=Outbox(database, publisher(os.environ, "/mp3burst/account")),
        presets=Presets(database, of_installation(os.environ)),
        confirms=switch(os.environ, "CONFIRM_EMAIL", default=True),
    )
