"""Watches the embedded platform: its own page, and what the kernel counts of its processes."""

import json
import urllib.request
from collections.abc import Mapping

from infra.local.instances import ROOT
from infra.local.manifests import read
from scripts.loadtest.processes import all_processes, tree
from scripts.loadtest.quantities import cores
from scripts.loadtest.recording import Look, Meter, Standing

#: The platform's own process, and the time of processes that had ended before they were looked at.
PLATFORM, ENDING = "platform", "(stopping)"


class Embedded:
    """A running platform."""

    name = "embedded"

    def __init__(self, url: str, pid: int | None = None) -> None:
        """Nothing is asked yet.

        Args:
            url: of the platform, on this machine.
            pid: its process; without it, found by the parent of the first function that runs.
        """
        self._url, self._pid, self._meter = url, pid, Meter()
        container = {name: function.container for name, function in read(ROOT / "knative", 1).functions.items()}
        self._cores = {name: cores(each["resources"]["requests"]["cpu"]) for name, each in container.items()}

    def look(self) -> Look:
        """What it shows now."""
        with urllib.request.urlopen(f"{self._url}/_platform", timeout=30) as answer:  # noqa: S310 - http
            shown = json.load(answer)
        instances = {name: [one["pid"] for one in f["instances"]] for name, f in shown["functions"].items()}
        return Look(
            pods={name: len(pids) for name, pids in instances.items()},
            queues={name: sum(queue.values()) for name, queue in shown["queues"].items()},
            cpu=self._cpu(instances),
            cores=self._cores,
            standing={PLATFORM: Standing(1)},
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
        # The platform has waited for every process that ended: what it counts beyond what was seen is their end.
        alive = sum(seconds for _, seconds in trees.values())
        unseen = max(own.waited + alive - sum(functions.values()), 0.0)
        return {**functions, PLATFORM: own.own, ENDING: unseen}
