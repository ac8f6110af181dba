"""Runs ``events.bridge`` next to the platform when RabbitMQ replaces the platform's own broker."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import aiohttp
from aiohttp import web

from events.errors import TryAgain
from events.http import unix_url
from events.rabbitmq.topology import Topology
from infra.local.connections import Handler
from infra.local.ingress import Functions
from infra.local.instances import ROOT
from infra.local.manifests import Trigger
from infra.local.problems import problem

#: The variables that a function needs to publish and the bridge needs to consume.
VARIABLES = ("AMQP_URL", "VIDEO_QUEUE", "PIECE_QUEUE", "PIECES_QUEUE", "MP3_QUEUE", "HOOK_QUEUE", "FETCH_QUEUE")
_BRIDGE_VARIABLES = ("BRIDGE_TRIES", "BRIDGE_DELAY", "BRIDGE_GRACE")
#: Seconds for one response: RabbitMQ closes a channel after 1800 without an acknowledgement.
_TIMEOUT = 1500
#: Seconds before a bridge that ended is started again.
_PAUSE = 1.0
_START = (
    "import os, sys; from infra.serve import die_with; die_with(int(sys.argv.pop(1))); "
    "from events.bridge.__main__ import main; sys.exit(main(sys.argv[1:], os.environ))"
)

log = logging.getLogger("platform")


def routes(triggers: Iterable[Trigger], topology: Topology, platform: Path) -> list[str]:
    """Returns the bridge's routes, from each queue to the function that a Trigger names for its events.

    Args:
        triggers: those of the manifests; their dead-letter sink becomes the route of the dead letters.
        topology: the queues.
        platform: the socket with the platform's pages.
    """
    found: dict[str, str] = {}
    for trigger in triggers:
        queue = topology.queue_of.get(trigger.filter.get("type", ""))
        if queue is not None:
            target = unix_url(platform, f"/_functions/{trigger.subscriber.function}")
            found[queue] = f"{queue}={target};concurrency={trigger.parallelism};timeout={_TIMEOUT}"
        if trigger.dead_letters is not None:
            found["dead"] = f"dead={unix_url(platform, f'/_functions/{trigger.dead_letters.function}')};concurrency=2"
    return list(found.values())


def pages(functions: Functions) -> dict[str, Handler]:
    """Returns the pages through which the bridge reaches functions that are not public."""
    return {f"/_functions/{name}": _page(functions, name) for name in functions.pools}


def _page(functions: Functions, name: str) -> Handler:
    async def deliver(request: web.BaseRequest) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower().startswith(("ce-", "content-t"))}
        try:
            async with functions.call(name, "POST", "/", headers, await request.read(), None) as answer:
                return web.Response(status=answer.status)
        except (TimeoutError, TryAgain, aiohttp.ClientError) as error:
            return problem(503, f"The function {name} did not finish: {error!r}.")

    return deliver


async def run_bridge(arguments: Iterable[str], environ: Mapping[str, str]) -> None:
    """Keeps the bridge running until canceled. It dies with this process, however this process ends."""
    names = (*VARIABLES, *_BRIDGE_VARIABLES, "PATH", "HOME", "LANG")
    env = {name: environ[name] for name in names if name in environ} | {"PYTHONPATH": str(ROOT)}
    options = [option for route in arguments for option in ("--route", route)]
    while True:
        bridge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START, str(os.getpid()), *options), cwd=ROOT, env=env, start_new_session=True
        )
        try:
            log.error("the bridge ended with status %s, restarting it", await bridge.wait())
            await asyncio.sleep(_PAUSE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                bridge.terminate()
            await bridge.wait()
