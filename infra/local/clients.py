"""Limits the requests of each client's network, as the gateway does with ``limit_conn`` and ``limit_req``."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from functions.networks import networks
from infra import front

#: Networks of which a rate is kept; those that have been quiet for longest are forgotten first.
_MAX_NETWORKS: Final = 10_000


@dataclass
class _Bucket:
    """The requests that a network may still make at once, at a time."""

    tokens: float
    at: float


class Clients:
    """The requests in progress, and the latest rate, of every network."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts without any."""
        self._clock = clock
        self._in_progress: Counter[str] = Counter()
        self._buckets: dict[str, _Bucket] = {}

    def enter(self, address: str) -> bool:
        """Counts a request; returns whether the client may make it. If so, ``leave`` has to follow."""
        network = networks(address)[0]
        now = self._clock()
        bucket = self._buckets.pop(network, None) or _Bucket(front.BURST, now)
        bucket.tokens = min(front.BURST, bucket.tokens + (now - bucket.at) * front.REQUESTS_PER_SECOND)
        bucket.at = now
        self._buckets[network] = bucket
        if len(self._buckets) > _MAX_NETWORKS:
            del self._buckets[next(iter(self._buckets))]
        if bucket.tokens < 1 or self._in_progress[network] >= front.REQUESTS_AT_ONCE:
            return False
        bucket.tokens -= 1
        self._in_progress[network] += 1
        return True

    def leave(self, address: str) -> None:
        """Ends a request that was admitted."""
        network = networks(address)[0]
        self._in_progress[network] -= 1
        if not self._in_progress[network]:
            del self._in_progress[network]
