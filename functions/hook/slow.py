"""Keeps the slow receivers of one user from taking all threads of a process.

A receiver may take as long as a call may. Whoever has one that does is given a quarter of the threads for a minute;
what exceeds them is put off. Users whose receivers answer soon are never limited.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Self

from functions.settings import number

#: Seconds from which on a call is slow.
SLOW: Final = 3.0
#: Seconds for which a user is limited after a slow call.
LIMITED: Final = 60.0


class SlowReceivers:
    """The calls of a process that are in progress, and the users whose receivers were slow."""

    def __init__(self, at_once: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        """Sets how many calls of a user with slow receivers may be in progress.

        Args:
            at_once: their number.
            clock: in seconds.
        """
        self._at_once = at_once
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._until: dict[str, float] = {}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Allows them a quarter of ``THREADS``.

        Raises:
            BadSetting: THREADS is not a number.
        """
        return cls(max(1, int(number(environ, "THREADS", 8, 1)) // 4))

    def begin(self, user: str) -> Callable[[], None] | None:
        """Begins a call to a receiver of the user.

        Returns:
            What ends it, or None if it has to wait.
        """
        with self._lock:
            started = self._clock()
            is_limited = self._until.get(user, 0.0) > started
            if is_limited and self._calls[user] >= self._at_once:
                return None
            self._calls[user] += 1

        def end() -> None:
            with self._lock:
                self._calls[user] -= 1
                if not self._calls[user]:
                    del self._calls[user]
                ended = self._clock()
                if ended - started >= SLOW:
                    self._until = {each: until for each, until in self._until.items() if until > ended}
                    self._until[user] = ended + LIMITED

        return end
