"""Limits how often something that clients cause is logged."""

import logging
import time


class OnceASecond:
    """Writes at most one warning a second, and says how many it left out."""

    def __init__(self, log: logging.Logger) -> None:
        """Writes to this logger."""
        self._log = log
        self._next = 0.0
        self._omitted = 0

    def warning(self, message: str, *args: object) -> None:
        """Logs a warning, unless one was logged within the last second."""
        now = time.monotonic()
        if now < self._next:
            self._omitted += 1
            return
        omitted = f" ({self._omitted} more in the meantime)" if self._omitted else ""
        self._log.warning(f"{message}{omitted}", *args)
        self._next = now + 1
        self._omitted = 0
