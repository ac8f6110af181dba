"""The processes of one function: started when requests wait, stopped when idle, replaced when they die."""

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
from typing import Any, Literal

from events.errors import TryAgain
from infra.local.manifests import Function

#: The directory that contains our packages; FUNCTION_SOURCE is relative to it, as in an image.
ROOT = Path(__file__).resolve().parents[2]
#: Seconds that an instance has to start listening, and seconds between two checks.
_START_TIMEOUT = 60.0
_POLL = 0.01
#: Seconds without a new attempt after a failed start; doubled each time.
_MIN_BACKOFF = 0.5
_MAX_BACKOFF = 30.0

log = logging.getLogger("platform")

_State = Literal["starting", "ready", "stopping"]


class NoInstance(TryAgain):
    """No instance became free in time, or the function's process ended before it listened."""


class Instance:
    """One process of a function."""

    def __init__(self) -> None:
        """Reserves a port for it.

        Raises:
            OSError: there are no more file descriptors.
        """
        self.state: _State = "starting"
        self.pid = 0
        self.inflight = 0
        self.idle_since = asyncio.get_running_loop().time()
        self.stop = asyncio.Event()
        # Bound but not listening, it reserves the port for a server with SO_REUSEADDR, such as gunicorn.
        self.reserved = socket.socket()
        self.reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.reserved.bind(("127.0.0.1", 0))
        self.port: int = self.reserved.getsockname()[1]

    def retire(self) -> None:
        """Accepts no more requests; running ones may finish."""
        self.state = "stopping"
        self.stop.set()


class Pool:
    """All instances of one function, and the requests that wait for one."""

    def __init__(self, function: Function, environment: Mapping[str, str]) -> None:
        """Starts nothing yet.

        Args:
            function: what to run.
            environment: its processes' variables, except PORT.
        """
        self.function = function
        self._environment = environment
        self._instances: dict[Instance, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._failures = 0
        self._not_before = 0.0
        self._loop = asyncio.get_running_loop()

    async def acquire(self, timeout: float | None) -> Instance:
        """Takes a slot in an instance, first come, first served; ``release`` gives it back.

        Args:
            timeout: seconds to wait; None to wait without limit.

        Raises:
            NoInstance: none became free in time, or none is running and a new one ended before it listened.
        """
        future: asyncio.Future[Instance] = self._loop.create_future()
        self._waiting.append(future)
        self.balance()
        try:
            async with asyncio.timeout(timeout):
                return await future
        except BaseException as error:
            if future.done() and not future.cancelled() and not future.exception():
                self.release(future.result())
            if isinstance(error, TimeoutError):
                raise NoInstance(f"The function {self.function.name} is busy: try again in a moment.") from error
            raise

    def release(self, instance: Instance) -> None:
        """Gives a slot back."""
        instance.inflight -= 1
        instance.idle_since = self._loop.time()
        self.balance()

    def balance(self) -> None:
        """Hands out free slots, and starts instances for the requests that still wait."""
        self._waiting = deque(future for future in self._waiting if not future.done())
        waiting = self._waiting
        # The oldest instance first: under low load the others become idle and stop.
        for instance in self._in("ready"):
            while waiting and instance.inflight < self.function.concurrency:
                instance.inflight += 1
                waiting.popleft().set_result(instance)
        alive = len(self._in("starting", "ready"))
        starting = len(self._in("starting"))
        if self._loop.time() < self._not_before:
            while waiting and not alive:
                message = f"The function {self.function.name} does not start: try again later. Its log says why."
                waiting.popleft().set_exception(NoInstance(message))
            return
        while alive < self.function.min_scale or (
            alive < self.function.max_scale and len(waiting) > starting * self.function.concurrency
        ):
            try:
                instance = Instance()
            except OSError as error:  # no more file descriptors
                self._back_off(error)
                self.balance()
                return
            self._instances[instance] = self._loop.create_task(self._live(instance))
            alive += 1
            starting += 1

    async def close(self, seconds: float) -> None:
        """Stops every instance, by force after so many seconds."""
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
        """Returns the pool's part of /_platform."""
        instances = []
        for instance in self._instances:
            idle = 0 if instance.inflight else round(self._loop.time() - instance.idle_since, 3)
            instances.append(
                {"pid": instance.pid, "state": instance.state, "inflight": instance.inflight, "idle_seconds": idle}
            )
        return {"instances": instances, "queued": len(self._waiting)}

    def _in(self, *states: _State) -> list[Instance]:
        return [instance for instance in self._instances if instance.state in states]

    async def _live(self, instance: Instance) -> None:
        try:
            await self._run(instance)
        except (OSError, NoInstance) as error:
            self._back_off(error)
        finally:
            instance.reserved.close()
            del self._instances[instance]
            self.balance()

    def _back_off(self, error: Exception) -> None:
        pause = min(_MIN_BACKOFF * 2**self._failures, _MAX_BACKOFF)
        self._failures += 1
        self._not_before = max(self._not_before, self._loop.time() + pause)
        log.error("%s: starting an instance failed, retrying in %g s: %s", self.function.name, pause, error)
        self._loop.call_later(pause, self.balance)

    async def _run(self, instance: Instance) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.serve"),
            cwd=ROOT,
            env={**self._environment, "PORT": str(instance.port)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in a terminal reaches only the platform, which drains. Not a session: the kernel shares the CPUs
            # among sessions first (sched(7), autogroup), so that nice values would mean nothing between instances.
            process_group=0,
        )
        instance.pid = process.pid
        ended = self._loop.create_task(process.wait())
        stop = self._loop.create_task(instance.stop.wait())
        relay = self._loop.create_task(_relay(self.function.name, process.stdout))
        try:
            await self._wait_until_ready(instance, ended)
            await self._wait_until_retired(instance, ended, stop)
            if not ended.done():
                process.terminate()
                await asyncio.wait({ended}, timeout=self.function.timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children included
            await ended
            await asyncio.wait({relay}, timeout=1)
            relay.cancel()
            stop.cancel()

    async def _wait_until_ready(self, instance: Instance, ended: asyncio.Task[int]) -> None:
        deadline = self._loop.time() + _START_TIMEOUT
        while instance.state == "starting":
            if ended.done():
                raise NoInstance("its process ended before it listened.")
            if self._loop.time() > deadline:
                raise NoInstance(f"it did not listen within {_START_TIMEOUT:g} s.")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", instance.port)
            except OSError:
                await asyncio.wait({ended}, timeout=_POLL)
                continue
            writer.close()
            if instance.state == "starting":
                instance.state = "ready"
                instance.idle_since = self._loop.time()
                self._failures = 0
                self.balance()

    async def _wait_until_retired(self, instance: Instance, ended: asyncio.Task[int], stop: asyncio.Task[Any]) -> None:
        while instance.state == "ready":
            remaining = instance.idle_since + self.function.window - self._loop.time()
            if instance.inflight or len(self._in("starting", "ready")) <= self.function.min_scale:
                remaining = self.function.window
            elif remaining <= 0:
                instance.retire()
            await asyncio.wait({ended, stop}, timeout=max(remaining, _POLL), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and instance.state == "ready":
                log.warning("%s (pid %d) ended with status %d", self.function.name, instance.pid, ended.result())
                instance.retire()


async def _relay(name: str, output: asyncio.StreamReader | None) -> None:
    line = b"-"
    while output and line:
        try:
            line = await output.readline()
        except ValueError:
            line = b"(line too long)\n"
        if line:
            print(f"{name}: {line.decode(errors='replace').rstrip()}", file=sys.stderr, flush=True)  # noqa: T201 - a log
