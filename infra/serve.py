"""Runs one function: gunicorn with threads over functions-framework; ``python -m infra.serve``.

functions-framework's own command has a fixed graceful timeout of 30 s and number of threads; this one reads:

- ``FUNCTION_TARGET``, ``FUNCTION_SOURCE``: the function and its file, functions-framework's names.
- ``BIND_ADDRESS`` (0.0.0.0) and ``PORT`` (8080).
- ``THREADS`` (8): how many requests are handled at once.
- ``STREAMS`` (0): how many connections there may be beside them whose responses are pushed, which take no thread.
- ``TIMEOUT_SECONDS`` (300): how long running requests may continue after SIGTERM.
- ``BUFFERED_BODY_BYTES`` (65536): how long a request's body may be to be received before it takes a thread.
- ``BODY_SECONDS`` (30): how long such a request may take to arrive, and how far the client of a longer one may fall
  behind ``MIN_RATE`` (20000), in bytes per second.
- ``PARENT_PID``: if set, this process dies with that parent.
"""

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from events.errors import Mp3burstError
from functions import warm_up
from functions.settings import BadSetting, number, refuse_outdated, required
from infra import front
from infra.slow_clients import SlowClientGuard

#: prctl(2), PR_SET_PDEATHSIG.
_SET_PARENT_DEATH_SIGNAL = 1
#: prctl(2), PR_SET_DUMPABLE.
_SET_DUMPABLE = 4

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _OneLineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = " | ".join(line for line in super().format(record).splitlines() if line.strip())
        return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def main() -> int:
    """Serves until SIGTERM.

    Returns:
        2 if the settings are invalid, or the function cannot work on this system; a server that stops ends the process
        itself.
    """
    try:
        if parent := os.environ.get("PARENT_PID"):
            die_with(int(parent))
        refuse_outdated(os.environ)
        options = settings(os.environ)
        # The sandbox that decodes untrusted media runs as the same user; it must not read this process's memory or
        # environment.
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0)
        log_to_stderr()
        wsgi = application(os.environ)
        warm_up.check()
    except Mp3burstError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer to a command
        return 2
    serve(wsgi, options)
    return 0


def die_with(parent: int) -> None:
    """Makes the kernel kill this process when its parent ends, however that happens. Exits if it has already ended."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def log_to_stderr() -> None:
    """Logs every record as one line, and flushes printed lines at once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # always a TextIOWrapper here


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Returns gunicorn's settings.

    Raises:
        BadSetting: a number is invalid.
    """
    grace = int(number(environ, "TIMEOUT_SECONDS", 300, 1))
    threads = int(number(environ, "THREADS", 8, 1))
    from infra.worker import MAX_HEAD, FunctionWorker, max_connections

    FunctionWorker.buffered_body = int(number(environ, "BUFFERED_BODY_BYTES", 64 << 10))
    FunctionWorker.seconds = number(environ, "BODY_SECONDS", 30, 0.1)
    return {
        "bind": f"{environ.get('BIND_ADDRESS') or '0.0.0.0'}:{int(number(environ, 'PORT', 8080, 1))}",  # noqa: S104 - a container's only port
        "worker_class": "infra.worker.FunctionWorker",
        "workers": 1,
        "threads": threads,
        "worker_connections": max(max_connections(int(number(environ, "STREAMS", 0))), threads + 1),
        # Our own limit of a head, in infra/worker.py, and of single fields, in functions/http_endpoint.py, come first.
        "limit_request_line": 0,
        "limit_request_field_size": MAX_HEAD,
        # Loopback counts as a proxy by default, and the headers SCRIPT_NAME and X-Forwarded-Proto that a client sends
        # through the embedded platform would change the path and the scheme.
        "forwarded_allow_ips": "",
        "timeout": 0,
        "graceful_timeout": grace,
        # Longer than the proxies in front keep an idle connection open, so that this side never closes one first.
        "keepalive": 120,
        "loglevel": "warning",
        "worker_tmp_dir": tempfile.gettempdir(),
        "control_socket_disable": True,
        "post_fork": lambda _arbiter, worker: die_with(worker.ppid),
        "post_worker_init": lambda _worker: threading.Thread(target=warm_up.warm_up, daemon=True).start(),
    }


def application(environ: Mapping[str, str]) -> Wsgi:
    """Loads the function.

    Raises:
        BadSetting: the file does not exist, or does not define the function.
    """
    import flask
    import functions_framework
    from functions_framework.exceptions import MissingSourceException, MissingTargetException
    from werkzeug.exceptions import HTTPException

    target = required(environ, "FUNCTION_TARGET", "the name of the function to run")
    source = required(environ, "FUNCTION_SOURCE", "the file that defines the function")
    try:
        app: flask.Flask = functions_framework.create_app(target, source)  # type: ignore[no-untyped-call]
    except (MissingSourceException, MissingTargetException) as error:
        raise BadSetting(
            f"There is no function {target} in {source}: check FUNCTION_TARGET and FUNCTION_SOURCE."
        ) from error
    app.register_error_handler(500, _internal_error)
    app.register_error_handler(HTTPException, _problem)
    # The framework reads the rest of a body into memory before it answers; _guarded limits that instead.
    after = app.after_request_funcs.get(None, [])
    after[:] = [function for function in after if function is not functions_framework.read_request]
    seconds = number(environ, "BODY_SECONDS", 30, 0.1)
    return _guarded(app, SlowClientGuard(seconds, number(environ, "MIN_RATE", 20_000, 1)))


def _internal_error(error: Any) -> tuple[str, int, dict[str, str]]:
    cause = getattr(error, "original_exception", None) or error
    message = str(cause) if isinstance(cause, Mp3burstError) else "The function failed: see its log for the cause."
    return f"{message}\n", 500, {"Content-Type": "text/plain; charset=utf-8"}


def _problem(error: Any) -> tuple[str, int, dict[str, str]]:
    """Returns what the framework refuses, such as a path with a line break, as problem+json in place of a page."""
    detail = front.NOT_FOUND if error.code == 404 else front.MESSAGES.get(error.code, error.description)
    body = {"type": "about:blank", "title": error.name, "status": error.code, "detail": detail}
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return json.dumps(body), error.code, {**headers, "Content-Type": "application/problem+json"}


def _guarded(app: Wsgi, guard: SlowClientGuard) -> Wsgi:
    from werkzeug.wsgi import ClosingIterator

    from functions.push import PUSH

    def wrapped(request: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        connection = request.get("gunicorn.socket")
        if connection is None:
            return app(request, start_response)
        length = int(request["CONTENT_LENGTH"]) if request.get("CONTENT_LENGTH") else None
        has_body = length is not None or "HTTP_TRANSFER_ENCODING" in request
        body = guard.body(request["wsgi.input"], connection, length if has_body else 0)
        request["wsgi.input"] = body
        if length is not None:
            # gunicorn treats a truncated body as complete; without this key werkzeug counts the bytes and raises.
            request.pop("wsgi.input_terminated", None)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            if not body.is_complete:
                # The worker drains the rest and closes the connection, so the client must not send another request.
                start_response.__self__.force_close()
            return start_response(status, headers, *error)

        response = app(request, start)
        on_close = [response.close] if hasattr(response, "close") else []
        chunks: Iterable[bytes] = response
        if (push := request.get(PUSH)) is not None:
            handover = _Handover(push, start_response.__self__)
            chunks = handover.first(response)
            on_close.append(handover.close)
        return ClosingIterator(guard.response(chunks, connection), on_close)

    return wrapped


class _Handover:
    """Leaves the rest of a pushed response to the worker, after its first bytes were sent."""

    def __init__(self, push: Any, response: Any) -> None:
        """Prepares it; ``response`` is gunicorn's."""
        self._push = push
        self._response = response
        self._is_done = False
        response.force_close()

    def first(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yields the first bytes, and then has the worker send the rest."""
        yield from chunks
        self._is_done = True
        self._response.req.push = self._push
        self._response.chunked = False  # gunicorn would end the chunks here

    def close(self) -> None:
        """Ends a response whose first bytes could not be sent."""
        if not self._is_done:
            self._push.ended()


def serve(wsgi: Wsgi, options: Mapping[str, Any]) -> None:
    """Runs gunicorn with these settings; ends the process."""
    from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Wsgi:
            return wsgi

    Application().run()


if __name__ == "__main__":
    sys.exit(main())
