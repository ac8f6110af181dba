"""Watches the embedded platform: its status page, and the CPU time of its processes."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from events.http import UnixConnection
from infra.local import control
from infra.local.instances import ROOT
from infra.local.manifests import read
from scripts.loadtest.recording import Meter, Snapshot, Standing, cpus_of

#: The platform's own process.
_PLATFORM = "platform"
#: CPU time of processes that ended before they could be read.
_ENDED = "(stopping)"
_TICKS = 100  # proc(5): USER_HZ


class Embedded:
    """A running platform."""

    name = "embedded"

    def __init__(self, data: Path, pid: int | None = None) -> None:
        """Prepares the calls; makes none yet.

        Args:
            data: the platform's data directory.
            pid: its process; if None, the parent of the first running function is used.
        """
        self._socket = data / control.SOCKET
        self._pid = pid
        self._meter = Meter()
        container = {name: function.container for name, function in read(ROOT / "knative", 1).functions.items()}
        self._cores = {name: cpus_of(each["resources"]["requests"]["cpu"]) for name, each in container.items()}

    def snapshot(self) -> Snapshot:
        """Returns the current state."""
        with contextlib.closing(UnixConnection(self._socket, timeout=30)) as connection:
            connection.request("GET", "/_platform")
            shown = json.load(connection.getresponse())
        instances = {name: [one["pid"] for one in f["instances"]] for name, f in shown["functions"].items()}
        return Snapshot(
            pods={name: len(pids) for name, pids in instances.items()},
            queues={name: sum(queue.values()) for name, queue in shown["queues"].items()},
            cpu=self._cpu(instances),
            cores=self._cores,
            standing={_PLATFORM: Standing(1)},
            dead_letters=len(shown["dead_letters"]),
        )

    def _cpu(self, instances: Mapping[str, list[int]]) -> dict[str, float]:
        processes = all_processes()
        if self._pid is None:
            first = next((pid for pids in instances.values() for pid in pids if pid in processes), None)
            self._pid = processes[first].parent if first is not None else None
        own = processes.get(self._pid or 0)
        trees = {f"{pid}": (name, tree(pid, processes)) for name, pids in instances.items() for pid in pids if pid}
        functions = self._meter.read(trees)
        if own is None:
            return functions
        # The platform waits for every process that ends, so its counter also has the time that no snapshot saw.
        alive = sum(seconds for _, seconds in trees.values())
        unseen = max(own.waited + alive - sum(functions.values()), 0.0)
        return {**functions, _PLATFORM: own.own, _ENDED: unseen}


class Times:
    """The parent of a process, its own CPU seconds, and those of the children that it has waited for."""

    __slots__ = ("own", "parent", "waited")

    def __init__(self, stat: str) -> None:
        fields = stat.rpartition(")")[2].split()
        self.parent = int(fields[1])
        self.own = (int(fields[11]) + int(fields[12])) / _TICKS
        self.waited = (int(fields[13]) + int(fields[14])) / _TICKS


def all_processes() -> dict[int, Times]:
    """Returns every process of this machine by its id."""
    found: dict[int, Times] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = Times(path.read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def tree(pid: int, processes: Mapping[int, Times]) -> float:
    """Returns the CPU seconds of a process, its descendants and those they have waited for; 0 if it has ended."""
    if pid not in processes:
        return 0.0
    children = (child for child, times in processes.items() if times.parent == pid)
    return float(processes[pid].own + processes[pid].waited + sum(tree(child, processes) for child in children))
