"""Measures what an attempt uses, for the receipt of its job."""

import os
import resource
import socket
import time

from functions.state.jobs import Usage


class Meter:
    """Measures the CPU of one attempt from its creation, and when the attempt has read the video."""

    def __init__(self, *, alone: bool) -> None:
        """Begins to measure.

        Args:
            alone: whether this process makes no other attempt meanwhile, so that the CPU of all its threads counts;
                otherwise only that of the calling thread does. The CPU of children that have ended counts in any case.
        """
        self._clock = time.process_time if alone else time.thread_time
        self._began = self._cpu()
        self._read_at = time.monotonic()

    def reading(self) -> None:
        """Notes that the video is still being read."""
        self._read_at = time.monotonic()

    def usage(self) -> Usage:
        """Returns what was used so far."""
        pod = f"{socket.gethostname()[-50:]}/{os.getpid()}"
        read_ago = time.monotonic() - self._read_at
        return Usage(int((self._cpu() - self._began) * 1000), pod, int(read_ago * 1000))

    def _cpu(self) -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return self._clock() + children.ru_utime + children.ru_stime
