"""The processes of one function: started when requests wait, stopped when none come, replaced when they die."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from events.errors import TryAgain
from infra.local.manifests import Function

#: The directory that holds our packages; FUNCTION_SOURCE is relative to it, as in an image.
ROOT = Path(__file__).resolve().parents[2]
#: Seconds that an instance may take to listen, and between two looks.
_START_SECONDS, _LOOK_SECONDS = 60.0, 0.01
#: Seconds without a new try after a failed start: doubled each time, from the first to the second.
_BACKOFF = (0.5, 30.0)
#: Seconds that a busy instance may go on beyond its time-out before it is killed.
_STOP_SLACK = 5.0
#: The longest line of a function's output that is kept together, in bytes.
_LINE = 1 << 16

log = logging.getLogger("platform")


class CannotStart(TryAgain):
    """The function's process ends before it listens."""


class AllBusy(TryAgain):
    """No instance became free in time."""


@dataclass(eq=False)
class Instance:
    """One process. ``state`` is starting, ready or stopping."""

    reserved: socket.socket
    state: str = "starting"
    inflight: int = 0
    idle_since: float = 0.0
    pid: int = 0
    timer: asyncio.TimerHandle | None = None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        return int(self.reserved.getsockname()[1])


class Pool:
    """All instances of one function, and the requests that wait for one."""

    def __init__(self, function: Function, environment: Mapping[str, str]) -> None:
        self.function = function
        self._environment = environment
        self._instances: dict[Instance, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._failures = 0
        self._not_before = 0.0
        self._closing = False
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Start what min-scale asks for."""
        self._scale()

    async def acquire(self, patience: float | None) -> Instance:
        """Take a place in an instance, in the order of the calls; give it back by ``release``.

        Args:
            patience: seconds to wait; None: as long as it takes.

        Raises:
            AllBusy: no place became free in time.
            CannotStart: none is running and a new one ended before it listened.
        """
        future: asyncio.Future[Instance] = self._loop.create_future()
        self._waiting.append(future)
        self._assign()
        try:
            async with asyncio.timeout(patience):
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and not future.exception():
                self.release(future.result())
            if isinstance(error, TimeoutError):
                name = self.function.name
                raise AllBusy(f"Every instance of {name} is busy: try again in a moment.") from error
            raise

    def release(self, instance: Instance) -> None:
        """Give a place back."""
        instance.inflight -= 1
        self._assign()

    def retire(self, instance: Instance) -> None:
        """Give an instance no more requests, let it finish those it has, and stop it."""
        instance.state = "stopping"
        instance.stop.set()

    async def close(self, seconds: float) -> None:
        """Stop everything: politely first, then, after so many seconds, at once."""
        self._closing = True
        for instance in self._instances:
            self.retire(instance)
        tasks = list(self._instances.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """What /_platform shows."""
        instances = [
            {
                "pid": instance.pid,
                "state": instance.state,
                "inflight": instance.inflight,
                "idle_seconds": 0.0 if instance.inflight else round(self._loop.time() - instance.idle_since, 3),
            }
            for instance in self._instances
        ]
        return {"instances": instances, "queued": sum(not future.done() for future in self._waiting)}

    def _in(self, *states: str) -> list[Instance]:
        return [instance for instance in self._instances if instance.state in states]

    def _assign(self) -> None:
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            free = (i for i in self._in("ready") if i.inflight < self.function.concurrency)
            # The oldest first: under little load the others fall idle and stop.
            if (instance := next(free, None)) is None:
                break
            instance.inflight += 1
            self._waiting.popleft().set_result(instance)
        for instance in self._in("ready"):
            self._watch_idleness(instance)
        self._scale()

    def _watch_idleness(self, instance: Instance) -> None:
        if instance.inflight and instance.timer:
            instance.timer.cancel()
            instance.timer = None
        elif not instance.inflight and not instance.timer:
            instance.idle_since = self._loop.time()
            instance.timer = self._loop.call_later(self.function.window, self._idle, instance)

    def _idle(self, instance: Instance) -> None:
        if len(self._in("starting", "ready")) > self.function.min_scale and instance.state == "ready":
            self.retire(instance)

    def _scale(self) -> None:
        if self._closing:
            return
        alive, starting = len(self._in("starting", "ready")), len(self._in("starting"))
        if self._loop.time() < self._not_before:
            if not alive:
                self._refuse()
            return
        waiting = sum(not future.done() for future in self._waiting)
        while alive < self.function.min_scale or (
            alive < self.function.max_scale and waiting > starting * self.function.concurrency
        ):
            # Bound and not listening, it keeps the port for a server with SO_REUSEADDR, as gunicorn is.
            reserved = socket.socket()
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
            instance = Instance(reserved, idle_since=self._loop.time())
            self._instances[instance] = self._loop.create_task(self._live(instance))
            alive, starting = alive + 1, starting + 1

    def _refuse(self) -> None:
        name = self.function.name
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(
                    CannotStart(f"The function {name} does not start: its log says why. Try again later.")
                )

    async def _live(self, instance: Instance) -> None:
        name = self.function.name
        process = ended = None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "infra.serve"),
                cwd=ROOT,
                env={**self._environment, "PORT": str(instance.port)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group: ours alone shall see it, and drain.
                start_new_session=True,
            )
            instance.pid = process.pid
            ended = self._loop.create_task(process.wait())
            relay = self._loop.create_task(_relay(name, process.stdout))
            if await self._listens(instance, ended):
                self._failures = 0
                instance.state = "ready"
                self._assign()
            elif not instance.stop.is_set():
                raise CannotStart(f"{name} did not start (exit status {process.returncode}).")
            stop = self._loop.create_task(instance.stop.wait())
            await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not ended.done():
                process.terminate()
                await asyncio.wait({ended}, timeout=self.function.timeout + _STOP_SLACK)
            elif not instance.stop.is_set():
                log.warning("%s (pid %d) ended with status %s", name, process.pid, process.returncode)
        except (OSError, CannotStart) as error:
            self._failures += 1
            pause = min(_BACKOFF[0] * 2 ** (self._failures - 1), _BACKOFF[1])
            self._not_before = self._loop.time() + pause
            log.error("%s The next try is in %g s.", error, pause)
            self._loop.call_later(pause, self._scale)
        finally:
            if process and ended:
                # Its children too, whatever they are.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await ended
                await relay
            if instance.timer:
                instance.timer.cancel()
            instance.reserved.close()
            del self._instances[instance]
            self._assign()

    async def _listens(self, instance: Instance, ended: asyncio.Task[int]) -> bool:
        deadline = self._loop.time() + _START_SECONDS
        while self._loop.time() < deadline and not ended.done() and not instance.stop.is_set():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", instance.port)
            except OSError:
                await asyncio.wait({ended}, timeout=_LOOK_SECONDS)
            else:
                writer.close()
                return True
        return False


async def _relay(name: str, output: asyncio.StreamReader | None) -> None:
    assert output is not None  # noqa: S101 - it was asked for
    rest = b""
    while chunk := await output.read(_LINE):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            print(f"{name}: {line.decode(errors='replace')}", file=sys.stderr, flush=True)  # noqa: T201 - its way to the log
    if rest:
        print(f"{name}: {rest.decode(errors='replace')}", file=sys.stderr, flush=True)  # noqa: T201 - as above
