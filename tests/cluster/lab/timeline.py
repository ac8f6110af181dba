"""Draws what a cold request waits for: ``python -m tests.cluster.lab.timeline PNG``.

Sends one request through the gateway while the gateway and the function are at zero. The lab's pods are processes of
this machine, so the times are exact to some ten milliseconds; what Kubernetes says of containers is up to a second old.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from events.http import UnixConnection
from tests.cluster.cluster import Cluster, User, reachable, until

FUNCTION = "status"
_PODS = "/api/v1/namespaces/mp3burst/pods"
#: What a pod waits for, in order: until a moment of ``Pod``, and the color.
_STAGES = {
    "sandbox": ("Kubernetes: scheduling and the pod's sandbox", "#999999"),
    "started": ("containers start", "#56b4e9"),
    "listening": ("the function or nginx starts", "#0072b2"),
    "address": ("Kubernetes has yet to publish the pod's address", "#e69f00"),
    "answered": ("request", "#009e73"),
}


@dataclass(slots=True)
class Pod:
    """The moments of one pod, in seconds of ``time.monotonic``."""

    uid: str
    moments: dict[str, float] = field(default_factory=dict)

    def note(self, moment: str, at: float) -> None:
        """Notes the first time that something has happened."""
        self.moments.setdefault(moment, at)


class Watch(threading.Thread):
    """Notes when pods are created, and when their processes start and listen."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.pods: dict[str, Pod] = {}
        self.ended = threading.Event()
        self._cluster = cluster
        self._known = {*_processes()}
        self._mine: dict[int, Pod] = {}

    def run(self) -> None:
        threading.Thread(target=self._watch_pods, daemon=True).start()
        while not self.ended.wait(0.005):
            for pid in {*_processes()} - self._known:
                self._look_at(pid)
            for pid, pod in self._mine.items():
                if "listening" not in pod.moments and _listens(pid):
                    pod.note("listening", time.monotonic())

    def _watch_pods(self) -> None:
        with closing(UnixConnection(self._cluster.api.socket, timeout=120)) as connection:
            connection.request("GET", f"{_PODS}?watch=1&labelSelector=serving.knative.dev/service")
            answer = connection.getresponse()
            while line := answer.readline():
                found = json.loads(line)["object"]
                metadata = found["metadata"]
                if "deletionTimestamp" in metadata:
                    continue  # of an earlier request
                name = metadata["labels"]["serving.knative.dev/service"]
                if name not in self.pods:
                    self.pods[name] = Pod(metadata["uid"])
                    self.pods[name].note("created", time.monotonic())
                if self.pods[name].uid == metadata["uid"] and found["status"].get("podIP"):
                    self.pods[name].note("address", time.monotonic())

    def _look_at(self, pid: int) -> None:
        with suppress(OSError, ValueError):
            group = Path(f"/proc/{pid}/cgroup").read_text()
            pod = next((each for each in self.pods.values() if each.uid in group), None)
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if not command.strip() or b"runc" in command:
                return  # not what it becomes yet
            self._known.add(pid)
            if pod is None:
                return
            pod.note("sandbox", _started(pid))
            if b"pause" not in command and b"queue" not in command:
                pod.note("started", _started(pid))
                self._mine[pid] = pod


def _processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _started(pid: int) -> float:
    """Returns when a process started (proc(5): field 22 of stat, in ticks since the machine started)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / 100 + time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _listens(pid: int) -> bool:
    with suppress(OSError):
        rows = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
        ]
        return any(row[1].endswith(":1F90") and row[3] == "0A" for row in rows)
    return False


def measure(cluster: Cluster) -> tuple[float, float, dict[str, Pod]]:
    """Returns when the request was sent and answered, and the pods that it started."""
    me = User.of(cluster)
    names = ("gateway", FUNCTION)
    until(lambda: not any(cluster.pods(name) for name in names), "zero pods")
    time.sleep(3)  # terminating pods still use the CPU
    watch = Watch(cluster)
    watch.start()
    time.sleep(1)
    begin = time.monotonic()
    assert me.call("GET", "/jobs").status == 200
    end = time.monotonic()
    watch.ended.set()
    watch.join()
    pods = {name: watch.pods[name] for name in names}
    for pod in pods.values():
        # It may be published while the function still starts.
        pod.moments["address"] = max(pod.moments["listening"], pod.moments.get("address", 0.0))
    return begin, end, pods


def draw(begin: float, end: float, pods: dict[str, Pod], png: Path) -> None:
    """Draws a row for each pod."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots()
    for row, (name, pod) in enumerate(pods.items()):
        at = pod.moments["created"]
        for moment, (label, color) in _STAGES.items():
            until_ = end if moment == "answered" else pod.moments[moment]
            axes.barh(row, until_ - at, 0.6, at - begin, color=color, label="" if row else label)
            at = until_
        axes.text(end - begin, row, f" {name}", va="center")
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlim(0, (end - begin) * 1.12)
    axes.set_xlabel("seconds since the request was sent")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(f"GET /jobs through a gateway at zero: answered after {end - begin:.2f} s", fontsize=11)
    figure.legend(frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    figure.savefig(png, dpi=100, metadata={"Software": "mp3burst"})


def main() -> None:
    cluster = reachable()
    assert cluster is not None, "CLUSTER_INGRESS is not set"
    begin, end, pods = measure(cluster)
    draw(begin, end, pods, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
