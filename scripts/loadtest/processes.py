"""What the kernel counts of this machine's processes, and servers that are processes beside a cluster."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scripts.loadtest.recording import Look, Meter, Standing
from scripts.loadtest.watch import Platform

_TICKS = 100  # proc(5): USER_HZ


class Times:
    """A process's parent, its own CPU seconds, and those of the children that it has waited for."""

    __slots__ = ("own", "parent", "waited")

    def __init__(self, stat: str) -> None:
        fields = stat.rpartition(")")[2].split()
        self.parent = int(fields[1])
        self.own = (int(fields[11]) + int(fields[12])) / _TICKS
        self.waited = (int(fields[13]) + int(fields[14])) / _TICKS


def all_processes() -> dict[int, Times]:
    """Every process of this machine by its number."""
    found: dict[int, Times] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = Times(path.read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def tree(pid: int, processes: Mapping[int, Times]) -> float:
    """CPU seconds of a process, of those below it, and of those that they have waited for; 0 where it is gone."""
    if pid not in processes:
        return 0.0
    below = (child for child, times in processes.items() if times.parent == pid)
    return float(processes[pid].own + processes[pid].waited + sum(tree(child, processes) for child in below))


class WithServers:
    """A platform, and stores that are no pods of it: each stands, with or without Knative."""

    def __init__(self, platform: Platform, servers: Mapping[str, int]) -> None:
        """Nothing is asked yet.

        Args:
            platform: without them.
            servers: each one's process by its name.
        """
        self.name = platform.name
        self._platform, self._servers, self._meter = platform, servers, Meter()

    def look(self) -> Look:
        """What the platform shows now, and they."""
        look, processes = self._platform.look(), all_processes()
        counters = {str(pid): (name, tree(pid, processes)) for name, pid in self._servers.items()}
        return replace(
            look,
            cpu={**look.cpu, **self._meter.read(counters)},
            standing={**look.standing, **{name: Standing(1, anyway=True) for name in self._servers}},
        )
