"""Limits how many requests of one user, and of one network, an instance handles at once."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Self

from events.errors import Mp3burstError
from functions.networks import networks
from functions.rate_limits import RateLimit
from functions.settings import number

#: Seconds after which a client may try again.
_RETRY_AFTER: Final = 5
#: What clients are told.
_NAME: Final = "transfers"
_UNTIL: Final = "when one of yours has ended"
_UNIT: Final = "concurrent-requests"


class TooManyRequests(Mp3burstError):
    """The user, or the client's network, has its share of the instance, or all shares are taken."""

    status = 429
    retry_after = _RETRY_AFTER

    def __init__(self, limit: RateLimit, until: str = _UNTIL) -> None:
        super().__init__(f"Too many {limit.name} at once: try again {until}.")
        self.limits = (limit,)


class Shares:
    """Counts the requests that wait for a client, a job or another server, so that they leave threads to all others."""

    def __init__(self, total: int, per_user: int, per_address: int, name: str = _NAME, until: str = _UNTIL) -> None:
        """Sets the limits, in requests at once.

        Args:
            total: of all users.
            per_user: of one.
            per_address: of one network.
            name: what the requests are, for clients.
            until: when clients may try again.
        """
        self._name = name
        self._until = until
        self._limits = {"total": total, "user": per_user, "address": per_address}
        self._lock = threading.Lock()
        self._taken: Counter[tuple[str, str]] = Counter()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Returns the shares of ``THREADS``: a quarter for a user, half for a network, three quarters in all.

        Args:
            environ: ``THREADS``; ``REQUESTS_PER_USER`` and ``REQUESTS_PER_ADDRESS`` take precedence.

        Raises:
            BadSetting: a number is invalid.
        """
        threads = int(number(environ, "THREADS", 8, 1))
        return cls(
            total=max(1, threads * 3 // 4),
            per_user=int(number(environ, "REQUESTS_PER_USER", max(1, threads // 4), 1)),
            per_address=int(number(environ, "REQUESTS_PER_ADDRESS", max(1, threads // 2), 1)),
        )

    @classmethod
    def of_streams(cls, environ: Mapping[str, str]) -> Self:
        """Returns the shares of ``STREAMS``, connections without a thread: 1/50 for a user, 1/8 for a network.

        Args:
            environ: ``STREAMS``; ``REQUESTS_PER_USER`` and ``REQUESTS_PER_ADDRESS`` take precedence.

        Raises:
            BadSetting: a number is invalid.
        """
        streams = int(number(environ, "STREAMS", 1000, 1))
        return cls(
            total=streams,
            per_user=int(number(environ, "REQUESTS_PER_USER", max(1, streams // 50), 1)),
            per_address=int(number(environ, "REQUESTS_PER_ADDRESS", max(1, streams // 8), 1)),
        )

    @classmethod
    def of_logins(cls, environ: Mapping[str, str]) -> Self:
        """Returns those of logins that wait for an identity provider: half of ``THREADS``.

        Nobody is known before such a login, so the provider counts as the user. A provider that does not respond
        leaves a quarter of these places to the others, and a network leaves half of them.

        Args:
            environ: ``THREADS``.

        Raises:
            BadSetting: it is invalid.
        """
        threads = int(number(environ, "THREADS", 8, 1))
        total = max(1, threads // 2)
        per_provider = max(1, total * 3 // 4)
        return cls(total, per_provider, max(1, total // 2), name="logins", until="in a few seconds")

    def take(self, user: str, address: str) -> Callable[[], None]:
        """Counts a request; the returned function ends it and may be called more than once.

        Args:
            user: who makes it.
            address: the client's; all addresses of an IPv6 network of 64 bits are the same.

        Raises:
            TooManyRequests: the user or the network has its share, or all shares are taken.
        """
        keys = _keys(user, address)
        with self._lock:
            if any(self._taken[key] >= self._limits[key[0]] for key in keys):
                limit = RateLimit(self._name, self._limits["user"], 0, _UNIT, reset=_RETRY_AFTER)
                raise TooManyRequests(limit, self._until)
            self._taken.update(keys)

        def release() -> None:
            with self._lock:
                self._taken.subtract(keys)
                for key in keys:
                    if self._taken[key] <= 0:
                        del self._taken[key]
                keys.clear()

        return release

    def limit(self, user: str, address: str) -> RateLimit:
        """Returns how many more requests of this user and network the instance would handle now."""
        with self._lock:
            left = min(self._limits[key[0]] - self._taken[key] for key in _keys(user, address))
        return RateLimit(self._name, self._limits["user"], max(0, left), _UNIT)


def _keys(user: str, address: str) -> list[tuple[str, str]]:
    return [("total", ""), ("user", user), ("address", networks(address)[0])]
