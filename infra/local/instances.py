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
from pathlib import Path
from typing import Any

from events.errors import TryAgain
from infra.local.manifests import Function

#: The directory that holds our packages; FUNCTION_SOURCE is relative to it, as in an image.
ROOT = Path(__file__).resolve().parents[2]
#: Seconds that an instance may take to listen, and between two looks.
_START, _LOOK = 60.0, 0.01
#: Seconds without a new try after a failed start: doubled each time, from the first to the second.
_BACKOFF = (0.5, 30.0)

log = logging.getLogger("platform")


class NoInstance(TryAgain):
    """Every instance is busy for too long, or the function's process ends before it listens."""


class Instance:
    """One process. ``state`` is starting, ready or stopping."""

    def __init__(self) -> None:
        self.state = "starting"
        self.pid = self.inflight = 0
        self.idle_since = asyncio.get_running_loop().time()
        self.stop = asyncio.Event()
        # Bound and not listening, it keeps the port for a server with SO_REUSEADDR, as gunicorn is.
        self.reserved = socket.socket()
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind(("127.0.0.1", 0))
        self.port: int = self.reserved.getsockname()[1]

    def retire(self) -> None:
        """No more requests; those it has may finish."""
        self.state = "stopping"
        self.stop.set()


class Pool:
    """All instances of one function, and the requests that wait for one."""

    def __init__(self, function: Function, environment: Mapping[str, str]) -> None:
        self.function, self._environment = function, environment
        self._instances: dict[Instance, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._failures, self._not_before = 0, 0.0
        self._loop = asyncio.get_running_loop()

    async def acquire(self, patience: float | None) -> Instance:
        """Take a place in an instance, in the order of the calls; give it back by ``release``.

        Args:
            patience: seconds to wait; None: as long as it takes.

        Raises:
            NoInstance: none became free in time, or none runs and a new one ended before it listened.
        """
        future: asyncio.Future[Instance] = self._loop.create_future()
        self._waiting.append(future)
        self.balance()
        try:
            async with asyncio.timeout(patience):
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and not future.exception():
                self.release(future.result())
            if isinstance(error, TimeoutError):
                raise NoInstance(f"The function {self.function.name} is busy: try again in a moment.") from error
            raise

    def release(self, instance: Instance) -> None:
        """Give a place back."""
        instance.inflight -= 1
        instance.idle_since = self._loop.time()
        self.balance()

    def balance(self) -> None:
        """Hand out the places that are free, and start an instance for whoever still waits."""
        waiting = self._waiting = deque(future for future in self._waiting if not future.done())
        # The oldest instance first: under little load the others fall idle and stop.
        for instance in self._in("ready"):
            while waiting and instance.inflight < self.function.concurrency:
                instance.inflight += 1
                waiting.popleft().set_result(instance)
        alive, starting = len(self._in("starting", "ready")), len(self._in("starting"))
        if self._loop.time() < self._not_before:
            while waiting and not alive:
                sentence = f"The function {self.function.name} does not start: its log says why. Try again later."
                waiting.popleft().set_exception(NoInstance(sentence))
            return
        while alive < self.function.min_scale or (
            alive < self.function.max_scale and len(waiting) > starting * self.function.concurrency
        ):
            try:
                instance = Instance()
            except OSError as error:  # no more file descriptors
                self._put_off(error)
                self.balance()
                return
            self._instances[instance] = self._loop.create_task(self._live(instance))
            alive, starting = alive + 1, starting + 1

    async def close(self, seconds: float) -> None:
        """Stop every instance, by force after so many seconds."""
        self._not_before = float("inf")
        tasks = list(self._instances.values())
        for instance in self._instances:
            instance.retire()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """What /_platform shows."""
        shown = []
        for i in self._instances:
            idle = 0 if i.inflight else round(self._loop.time() - i.idle_since, 3)
            shown.append({"pid": i.pid, "state": i.state, "inflight": i.inflight, "idle_seconds": idle})
        return {"instances": shown, "queued": len(self._waiting)}

    def _in(self, *states: str) -> list[Instance]:
        return [instance for instance in self._instances if instance.state in states]

    async def _live(self, instance: Instance) -> None:
        try:
            await self._run(instance)
        except (OSError, NoInstance) as error:
            self._put_off(error)
        finally:
            instance.reserved.close()
            del self._instances[instance]
            self.balance()

    def _put_off(self, error: Exception) -> None:
        pause = min(_BACKOFF[0] * 2**self._failures, _BACKOFF[1])
        self._failures += 1
        self._not_before = max(self._not_before, self._loop.time() + pause)
        log.error("%s: %s The next try is in %g s.", self.function.name, error, pause)
        self._loop.call_later(pause, self.balance)

    async def _run(self, instance: Instance) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.serve"),
            cwd=ROOT,
            env={**self._environment, "PORT": str(instance.port)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal is for the platform alone, which drains.
        )
        instance.pid = process.pid
        ended, stop = self._loop.create_task(process.wait()), self._loop.create_task(instance.stop.wait())
        relay = self._loop.create_task(_relay(self.function.name, process.stdout))
        try:
            await self._start(instance, ended)
            await self._stay(instance, ended, stop)
            if not ended.done():
                process.terminate()
                await asyncio.wait({ended}, timeout=self.function.timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # With whatever it has started.
            await ended
            await asyncio.wait({relay}, timeout=1)
            relay.cancel()
            stop.cancel()

    async def _start(self, instance: Instance, ended: asyncio.Task[int]) -> None:
        deadline = self._loop.time() + _START
        while instance.state == "starting":
            if ended.done() or self._loop.time() > deadline:
                raise NoInstance("It did not start.")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", instance.port)
            except OSError:
                await asyncio.wait({ended}, timeout=_LOOK)
                continue
            writer.close()
            if instance.state == "starting":
                self._failures, instance.state, instance.idle_since = 0, "ready", self._loop.time()
                self.balance()

    async def _stay(self, instance: Instance, ended: asyncio.Task[int], stop: asyncio.Task[Any]) -> None:
        while instance.state == "ready":
            left = instance.idle_since + self.function.window - self._loop.time()
            if instance.inflight or len(self._in("starting", "ready")) <= self.function.min_scale:
                left = self.function.window
            elif left <= 0:
                instance.retire()
            await asyncio.wait({ended, stop}, timeout=max(left, _LOOK), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and instance.state == "ready":
                log.warning("%s (pid %d) ended with status %d", self.function.name, instance.pid, ended.result())
                instance.retire()


async def _relay(name: str, output: asyncio.StreamReader | None) -> None:
    line = b"-"
    while output and line:
        try:
            line = await output.readline()
        except ValueError:
            line = b"(a line too long to show)\n"
        if line:
            print(f"{name}: {line.decode(errors='replace').rstrip()}", file=sys.stderr, flush=True)  # noqa: T201 - a log
