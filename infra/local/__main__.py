"""The embedded platform, ``python -m infra.local``: runs on one machine what Knative runs on a cluster."""

import argparse
import asyncio
import errno
import fcntl
import logging
import math
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, NamedTuple

from aiohttp import web

from events.errors import Mp3burstError
from events.http import unix_url
from events.rabbitmq.topology import Topology
from functions.settings import refuse_outdated
from infra import config
from infra.apidocs.site import documents
from infra.local import bridge_runner, control
from infra.local.broker import Broker
from infra.local.connections import accept
from infra.local.ingress import Functions, Ingress
from infra.local.instances import ROOT, Pool
from infra.local.manifests import Function, Manifests, read
from infra.local.private import make_private
from infra.local.store import Store

#: Seconds that running requests have after SIGTERM, and that processes have to end after that.
_DRAIN_SECONDS = 30.0
_STOP_SECONDS = 5.0


class Listeners(NamedTuple):
    """The sockets that the platform listens on: for users, and for its own pages."""

    public: socket.socket
    pages: socket.socket


class CannotRun(Mp3burstError):
    """The platform cannot start here."""


def main() -> int:
    """Runs until SIGTERM or SIGINT, without draining after a second signal. Returns 1 if it cannot start."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # Each request needs two connections: the usual limit of 1024 is too low for a burst.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        refuse_outdated(os.environ)
        manifests = read(options.manifests, len(os.sched_getaffinity(0)), options.idle)
        data = options.data.resolve()
        with _open_lock(data) as lock, _listen(options.port) as listener:
            _take_lock(lock.fileno(), data)
            make_private(data)
            values = config.values(os.environ, data, listener.getsockname()[1])
            environments = {name: _environment(f, values, data) for name, f in manifests.functions.items()}
            env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(ROOT), **values["database-owner"]}
            if subprocess.run([sys.executable, "-m", "infra.migrations"], cwd=ROOT, env=env, check=False).returncode:
                raise CannotRun("Migrating the database failed: see the message above.")
            with control.listening(data) as pages:
                asyncio.run(_run(manifests, environments, data, Listeners(listener, pages)))
    except (Mp3burstError, OSError, KeyboardInterrupt) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the answer to a command
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Runs mp3burst on this machine.")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data", metavar="DIR", help="where all data is stored (data)"
    )
    parser.add_argument("--port", type=int, default=8080, help="the port to listen on (8080); 0 picks a free one")
    parser.add_argument("--idle", type=_seconds, metavar="SECONDS", help="stop a function after this long without work")
    parser.add_argument("--manifests", type=Path, default=ROOT / "knative", metavar="DIR", help="what to run (knative)")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds: give 0 or more")
    return value


def _open_lock(data: Path) -> IO[str]:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (data / "lock").open("w")
    except OSError as error:
        raise CannotRun(f"Cannot write to {data} ({error.strerror}): choose another --data.") from error


def _take_lock(lock: int, data: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CannotRun(f"mp3burst is already running on {data}: stop it, or choose another --data.") from error


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=1024)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise CannotRun(f"Port {port} is in use: stop what runs there, or choose another --port.") from error
        raise CannotRun(f"Port {port} cannot be used here: choose another --port.") from error


def _environment(function: Function, values: dict[str, dict[str, str]], data: Path) -> dict[str, str]:
    # Of this process's variables a function inherits only PATH and the like; of the operator's settings, only those
    # that its manifest lists.
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    inherited["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    own = {"BIND_ADDRESS": "127.0.0.1", "PARENT_PID": str(os.getpid()), "K_SERVICE": function.name}
    own["K_SINK"] = unix_url(data / control.SOCKET, "/_broker")
    listed = {variable["name"] for variable in function.container.get("env", ())}
    if "PLACES" in listed:
        own["PLACES"] = str(function.places)
    if os.environ.get("AMQP_URL"):
        own["K_SINK"] = ""
        if "K_SINK" in listed:
            own |= {name: os.environ[name] for name in bridge_runner.VARIABLES if name in os.environ}
    return inherited | config.environment(function.container, values) | own


async def _run(manifests: Manifests, environments: dict[str, dict[str, str]], data: Path, listeners: Listeners) -> None:
    loop = asyncio.get_running_loop()
    signals = asyncio.Semaphore(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.release)
    functions = Functions({n: Pool(function, environments[n]) for n, function in manifests.functions.items()})
    uses_rabbitmq = bool(os.environ.get("AMQP_URL"))
    broker = Broker(Store(data / "broker.db"), functions, [] if uses_rabbitmq else manifests.triggers)

    async def status(_request: web.BaseRequest) -> web.Response:
        pools = {name: pool.status() for name, pool in functions.pools.items()}
        return web.json_response({"functions": pools, **await broker.status()})

    event_pages = bridge_runner.pages(functions) if uses_rabbitmq else {"/_broker": broker.receive}
    ingress = Ingress(functions, os.environ, documents())
    pages = control.server({"/_platform": status, **event_pages})
    accepting = asyncio.create_task(ingress.server.accept(listeners.public))
    accepting_events = asyncio.create_task(accept(listeners.pages, pages, ingress.server.log))
    for pool in functions.pools.values():
        pool.balance()
    await broker.open(manifests.pings)
    bridge = None
    if uses_rabbitmq:
        routes = bridge_runner.routes(manifests.triggers, Topology.from_environ(os.environ), data / control.SOCKET)
        bridge = asyncio.create_task(bridge_runner.run_bridge(routes, os.environ))
    port = listeners.public.getsockname()[1]
    print(f"mp3burst is ready on http://localhost:{port}", flush=True)  # noqa: T201 - tells callers that they can connect
    await signals.acquire()
    # Running functions may still publish.
    ingress.draining = True
    broker.stop()
    second_signal = asyncio.create_task(signals.acquire())
    deadline = loop.time() + _DRAIN_SECONDS
    if bridge is not None:
        bridge.cancel()
        await asyncio.wait({bridge, second_signal}, timeout=_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    while ingress.inflight + len(broker.deliveries) and loop.time() < deadline and not second_signal.done():
        await asyncio.wait({second_signal}, timeout=0.05)
    accepting.cancel()
    listeners.public.close()
    await functions.close(0 if second_signal.done() else _STOP_SECONDS)
    await ingress.server.shutdown(0.1)
    accepting_events.cancel()
    listeners.pages.close()
    await pages.shutdown(0.1)
    await broker.close()
    second_signal.cancel()


if __name__ == "__main__":
    sys.exit(main())
