"""Checks usernames with passwords: limits guesses, and logs every result."""

import functools

from functions import security_log
from functions.auth.accounts import Accounts, User, WrongCredentials, normalize_username
from functions.auth.throttle import Throttle, TooManyFailures, failed_logins, login_attempt


def authenticate(username: str, password: str, address: str, accounts: Accounts, throttle: Throttle) -> User:
    """Returns the user with these credentials.

    Raises:
        WrongCredentials: there is no such user, or the password is wrong.
        TooManyFailures: too many logins failed for this account or from this address.
    """
    record = functools.partial(security_log.record, user=normalize_username(username), address=address)
    attempt = login_attempt(username, address)
    try:
        standing = throttle.check(attempt)
        try:
            user = accounts.authenticate(username, password)
        except WrongCredentials as error:
            error.limits = (failed_logins(max(0, standing.free - 1)),)
            for subject, milliseconds in throttle.record_failure(attempt, standing).items():
                record("login.locked", subject=subject, seconds=milliseconds // 1000)
            raise
        # Checked again: of many simultaneous guesses, no more may be confirmed than sequential ones could have been.
        throttle.record_success(attempt, throttle.check(attempt))
    except TooManyFailures as error:
        record("login.refused", seconds=error.retry_after)
        raise
    except WrongCredentials:
        record("login.failed")
        raise
    return user
