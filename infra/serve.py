"""Runs one function: gunicorn with threads over functions-framework; ``python -m infra.serve``.

functions-framework's own command fixes a graceful time-out of 30 s and the node's number of threads; this one reads:

- ``FUNCTION_TARGET``, ``FUNCTION_SOURCE``: the function and the file it is in, functions-framework's names.
- ``BIND_ADDRESS`` (0.0.0.0) and ``PORT`` (8080).
- ``THREADS`` (8): how many requests are handled at once.
- ``TIMEOUT_SECONDS`` (300): how long running requests may go on after SIGTERM.
- ``BODY_SECONDS`` (30): how long one read of a request's body may take, up to 64 KiB of JSON or 256 KiB of an upload.
- ``PARENT_PID``: where it is set, this process dies with that parent.
"""

import ctypes
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from events.errors import Mp3burstError
from functions.settings import BadSetting, number, refuse_outdated, required
from infra.slow_clients import Patience

#: prctl(2), PR_SET_PDEATHSIG.
_SET_PARENT_DEATH_SIGNAL = 1
#: prctl(2), PR_SET_DUMPABLE.
_SET_DUMPABLE = 4
#: How much of a body that the function left unread is taken, in bytes and in seconds, so that its answer arrives.
_LINGER_BYTES = 256 << 20
_LINGER_SECONDS = 5.0

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = " | ".join(line for line in super().format(record).splitlines() if line.strip())
        return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def main() -> int:
    """Serve until SIGTERM.

    Returns:
        2 where the settings are wrong; a server that stops ends the process itself.
    """
    try:
        if parent := os.environ.get("PARENT_PID"):
            die_with(int(parent))
        refuse_outdated(os.environ)
        options = settings(os.environ)
        # What runs a stranger's media under the same user must not read this process's memory or environment.
        ctypes.CDLL(None).prctl(_SET_DUMPABLE, 0)
        log_to_stderr()
        wsgi = application(os.environ)
    except Mp3burstError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer to a command
        return 2
    serve(wsgi, options)
    return 0


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends; also where it has ended already."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def log_to_stderr() -> None:
    """One record, one line; printed lines leave the process at once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # always a TextIOWrapper here


def settings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Gunicorn's settings.

    Raises:
        BadSetting: a number that is none.
    """
    grace = int(number(environ, "TIMEOUT_SECONDS", 300, 1))
    return {
        "bind": f"{environ.get('BIND_ADDRESS') or '0.0.0.0'}:{int(number(environ, 'PORT', 8080, 1))}",  # noqa: S104 - a container's only port
        "worker_class": "gthread",
        "workers": 1,
        "threads": int(number(environ, "THREADS", 8, 1)),
        "timeout": 0,
        "graceful_timeout": grace,
        # Longer than the proxies in front keep an idle connection, so that it is never this side that closes one.
        "keepalive": 120,
        "loglevel": "warning",
        "worker_tmp_dir": tempfile.gettempdir(),
        "control_socket_disable": True,
        "post_fork": lambda _arbiter, worker: die_with(worker.ppid),
    }


def application(environ: Mapping[str, str]) -> Wsgi:
    """Load the function.

    Raises:
        BadSetting: there is no such file or function in it.
    """
    import flask
    import functions_framework
    from functions_framework.exceptions import MissingSourceException, MissingTargetException

    target = required(environ, "FUNCTION_TARGET", "the name of the function to run")
    source = required(environ, "FUNCTION_SOURCE", "the file that the function is in")
    try:
        app: flask.Flask = functions_framework.create_app(target, source)  # type: ignore[no-untyped-call]
    except (MissingSourceException, MissingTargetException) as error:
        raise BadSetting(
            f"There is no function {target} in {source}: check FUNCTION_TARGET and FUNCTION_SOURCE."
        ) from error
    app.register_error_handler(500, _crashed)
    # The framework reads what is left of a body into memory before it answers; _courteous bounds that instead.
    after = app.after_request_funcs.get(None, [])
    after[:] = [function for function in after if function is not functions_framework.read_request]
    return _courteous(app, Patience(number(environ, "BODY_SECONDS", 30, 0.1)))


def _crashed(error: Any) -> tuple[str, int, dict[str, str]]:
    cause = getattr(error, "original_exception", None) or error
    sentence = str(cause) if isinstance(cause, Mp3burstError) else "The function failed; its log says why."
    return f"{sentence}\n", 500, {"Content-Type": "text/plain; charset=utf-8"}


def _courteous(app: Wsgi, patience: Patience) -> Wsgi:
    from werkzeug.wsgi import ClosingIterator

    def wrapped(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if (connection := environ.get("gunicorn.socket")) is not None:
            environ["wsgi.input"] = patience.body(environ["wsgi.input"], connection)
        if "CONTENT_LENGTH" in environ:
            # To gunicorn a body that broke off has ended; without this key werkzeug counts and raises.
            environ.pop("wsgi.input_terminated", None)
        return ClosingIterator(app(environ, start_response), lambda: _linger(environ))

    return wrapped


def _linger(environ: dict[str, Any]) -> None:
    # Closing a socket with unread bytes resets the connection, and the client may lose the answer. So after the
    # answer the rest of the body is taken for a while: whoever reads the answer stops sending.
    connection, body = environ.get("gunicorn.socket"), environ["wsgi.input"]
    if connection is None:
        return
    left, deadline = _LINGER_BYTES, time.monotonic() + _LINGER_SECONDS
    try:
        while left > 0 and (seconds := deadline - time.monotonic()) > 0:
            connection.settimeout(seconds)
            taken = len(body.read(1 << 16))
            if not taken:
                break
            left -= taken
        connection.settimeout(None)
    except (OSError, ValueError):
        return


def serve(wsgi: Wsgi, options: Mapping[str, Any]) -> None:
    """Run gunicorn with these settings; ends the process."""
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
