"""What goes on, as numbers for Prometheus and other programs that collect them."""

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import functions_framework
from flask import Request, Response

from functions.auth.tokens import NotAllowed
from functions.http_endpoint import Routes, identify, prepare_to_identify
from functions.metrics import api
from functions.metrics.families import exposition
from functions.metrics.readings import read, read_totals
from functions.state.administrators import ADMIN
from functions.state.database import shared
from functions.warm_up import before_first_request

#: Seconds for which a reading is used: however many programs ask, the database is read no more often by this process.
MAX_AGE: Final = 5.0
#: The same for what takes a scan of whole tables.
TOTALS_MAX_AGE: Final = 300.0
T = TypeVar("T")


class Latest(Generic[T]):
    """What was read last."""

    def __init__(
        self, read: Callable[[], T], max_age: float = MAX_AGE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Reads nothing yet.

        Args:
            read: reads it.
            max_age: seconds for which it is used.
            clock: in seconds.
        """
        self._read = read
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._latest: tuple[T, float] | None = None

    def get(self) -> T:
        """Returns it; those who ask while it is being read wait for the same."""
        with self._lock:
            if self._latest is None or self._clock() >= self._latest[1]:
                self._latest = self._read(), self._clock() + self._max_age
            return self._latest[0]


@functions_framework.http
def metrics(request: Request) -> Response:
    """Handles /metrics."""
    return _ROUTES.answer(request)


def _show_metrics(request: Request) -> Response:
    # A role that is half a minute old will do, and spares the database a query for each request.
    if identify(request, os.environ).role != ADMIN:
        raise NotAllowed("Only administrators may do this: use a key of one with the scope metrics.")
    return Response(latest().get(), content_type=api.TEXT)


@functools.cache
def latest() -> Latest[bytes]:
    """Builds what reads the metrics from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or malformed.
    """
    database = shared(os.environ)
    totals = Latest(lambda: read_totals(database), TOTALS_MAX_AGE)
    return Latest(lambda: exposition(read(database, totals.get())))


before_first_request(prepare_to_identify)
_ROUTES = Routes({api.SHOW_METRICS: _show_metrics})
