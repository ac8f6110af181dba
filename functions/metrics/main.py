"""What goes on, as numbers for Prometheus and other programs that collect them."""

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Final

import functions_framework
from flask import Request, Response

from functions.auth.tokens import NotAllowed
from functions.http_endpoint import Routes, identify, prepare_to_identify
from functions.metrics import api
from functions.metrics.families import exposition
from functions.metrics.readings import read
from functions.state.administrators import ADMIN
from functions.state.database import shared
from functions.warm_up import before_first_request

#: Seconds for which a reading is used: however many programs ask, the database is read no more often by this process.
MAX_AGE: Final = 5.0


class Latest:
    """The metrics as they were read last."""

    def __init__(self, make: Callable[[], bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._lock = threading.Lock()
        self._text = b""
        self._until = float("-inf")

    def get(self) -> bytes:
        """Returns the metrics; those who ask while they are being read wait for the same ones."""
        with self._lock:
            if self._clock() >= self._until:
                self._text = self._make()
                self._until = self._clock() + MAX_AGE
            return self._text


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
def latest() -> Latest:
    """Builds what reads the metrics from the environment, once per process.

    Raises:
        BadSetting: a variable is missing or malformed.
    """
    database = shared(os.environ)
    return Latest(lambda: exposition(read(database)))


before_first_request(prepare_to_identify)
_ROUTES = Routes({api.SHOW_METRICS: _show_metrics})
