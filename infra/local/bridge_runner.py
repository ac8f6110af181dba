"""Runs ``events.bridge`` beside the platform where RabbitMQ takes the place of its own broker."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping

import aiohttp
from aiohttp import web

from events.errors import TryAgain
from events.rabbitmq.topology import Topology
from infra.local.ingress import Functions, Handler, problem
from infra.local.instances import ROOT
from infra.local.manifests import Trigger

#: What a function needs to publish, and the bridge to consume.
VARIABLES = ("AMQP_URL", "VIDEO_QUEUE", "PIECE_QUEUE", "PIECES_QUEUE", "MP3_QUEUE")
_BRIDGE = ("BRIDGE_TRIES", "BRIDGE_DELAY", "BRIDGE_GRACE")
#: Seconds for one answer: RabbitMQ takes a channel away after 1800 without an acknowledgement.
_TIMEOUT, _PAUSE = 1500, 1.0
_START = "import os, sys; from infra.serve import die_with; die_with(int(sys.argv.pop(1))); "
_START += "from events.bridge.__main__ import main; sys.exit(main(sys.argv[1:], os.environ))"

log = logging.getLogger("platform")


def routes(triggers: Iterable[Trigger], topology: Topology, port: int) -> list[str]:
    """The bridge's routes: each queue to the function that a Trigger names for its events, dead letters to bury."""
    found: dict[str, str] = {}
    for trigger in triggers:
        queue = topology.queue_of.get(trigger.filter.get("type", ""))
        if queue is not None:
            target = f"http://127.0.0.1:{port}/_functions/{trigger.subscriber.function}"
            found[queue] = f"{queue}={target};concurrency={trigger.parallelism};timeout={_TIMEOUT}"
        if trigger.dead_letters is not None:
            found["dead"] = f"dead=http://127.0.0.1:{port}/_functions/{trigger.dead_letters.function};concurrency=2"
    return list(found.values())


def pages(functions: Functions) -> dict[str, Handler]:
    """The addresses under which the bridge reaches functions that are not public."""
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
    """Keep the bridge running until cancelled; it ends with this process, however that ends."""
    names = (*VARIABLES, *_BRIDGE, "PATH", "HOME", "LANG")
    env = {name: environ[name] for name in names if name in environ} | {"PYTHONPATH": str(ROOT)}
    options = [option for route in arguments for option in ("--route", route)]
    while True:
        bridge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START, str(os.getpid()), *options), cwd=ROOT, env=env, start_new_session=True
        )
        try:
            log.error("the bridge ended with %s and is started again", await bridge.wait())
            await asyncio.sleep(_PAUSE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                bridge.terminate()
            await bridge.wait()
