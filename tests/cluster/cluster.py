"""A running cluster with mp3burst on it, as ``./scripts/deploy`` left it: who asks it, who watches it, who harms it.

``CLUSTER_INGRESS`` is HOST:PORT of Kourier; KUBECTL names a kubectl as it does for ``./scripts/deploy``.
"""

import contextlib
import email
import email.message
import email.policy
import http.client
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from tests.e2e.client import Answer, Client
from tests.support.processes import wait_for

#: The function of each path, as the manifests claim them.
FUNCTIONS = {
    "register": "register",
    "login": "login",
    ".well-known": "login",
    "validate": "validate",
    "upload": "upload",
    "files": "upload",
    "jobs": "status",
    "download": "download",
}
#: Of the catcher, by way of the API server: Mailpit's own API.
_MAIL = "/api/v1/namespaces/mp3burst/services/mail:8025/proxy/api/v1"


def until(probe: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait for something on the cluster."""
    wait_for(probe, what, seconds, every=0.5)


class Cluster:
    """Asked by kubectl, in the project's namespace."""

    def __init__(self, kubectl: str, ingress: str) -> None:
        self._kubectl, self.ingress = shlex.split(kubectl), ingress

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self._run(arguments, given).stdout

    def warnings(self, *arguments: str, given: str = "") -> str:
        """What kubectl writes to standard error where it succeeds."""
        return self._run(arguments, given).stderr

    def _run(self, arguments: Sequence[str], given: str) -> "subprocess.CompletedProcess[str]":
        command = [*self._kubectl, "--namespace", "mp3burst", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *arguments, "-o", "json"))["items"]
        return found

    def hosts(self) -> dict[str, str]:
        """The host name of each public function."""
        found = self.get("services.serving.knative.dev")
        return {each["metadata"]["name"]: urlsplit(each["status"]["url"]).netloc for each in found}

    def pods(self, function: str = "") -> list[str]:
        """The pods of a function, or of all functions, that have not been told to end."""
        label = "serving.knative.dev/service" + (f"={function}" if function else "")
        found = [each["metadata"] for each in self.get("pods", "-l", label)]
        return [each["name"] for each in found if "deletionTimestamp" not in each]

    def await_end(self, function: str) -> None:
        """Wait until one of the pods that a function has now is told to end."""
        there = {*self.pods(function)}
        assert there, f"{function} has no pod"
        until(lambda: there - {*self.pods(function)}, f"the end of a pod of {function}")

    def peak_rss(self, function: str) -> int:
        """The most memory that one process of a function's pods has ever had, in bytes, as the kernel counts it."""
        look = "cat /proc/[0-9]*/status"
        text = "".join(
            self.kubectl("exec", pod, "-c", "user-container", "--", "sh", "-c", look) for pod in self.pods(function)
        )
        return max(int(kilobytes) << 10 for kilobytes in re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE))

    def asleep(self, seconds: float = 150) -> None:
        """Wait until no function has a pod, apart from sweep, which the lab wakes every minute."""
        until(lambda: all(name.startswith("sweep-") for name in self.pods()), "scaled to zero", seconds)

    def sweep(self) -> None:
        """Have sweep look now: what wakes it does so when it starts."""
        self.kubectl("delete", "pod", "--now", "--wait=false", "-l", "app.kubernetes.io/name=ping")

    def mailed(self, address: str) -> list[str]:
        """The ids of what the catcher has taken for somebody."""
        heads = json.loads(self.kubectl("get", "--raw", f"{_MAIL}/messages?limit=1000"))["messages"]
        return [head["ID"] for head in heads if address in [to["Address"] for to in head["To"]]]

    def mails(self, address: str) -> list[email.message.EmailMessage]:
        """What the catcher has taken for somebody."""
        raw = [self.kubectl("get", "--raw", f"{_MAIL}/message/{one}/raw") for one in self.mailed(address)]
        return [email.message_from_string(text, policy=email.policy.default) for text in raw]


class User(Client):
    """A user whose calls go to Kourier: to the gateway's one host, or to each function's own."""

    hosts: Mapping[str, str] = {}
    gateway: bool = True

    @classmethod
    def of(cls, cluster: Cluster, gateway: bool = True) -> Self:
        """A new user, logged in."""
        kind = type("User", (cls,), {"hosts": cluster.hosts(), "gateway": gateway})
        made: Self = kind(f"http://{cluster.ingress}").sign_up()
        return made

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = 120,
        source: str | None = None,
    ) -> Answer:
        function = FUNCTIONS[path.lstrip("/").partition("?")[0].partition("/")[0]]
        host = self.hosts["gateway" if self.gateway else function]
        return super().call(method, path, body, {"Host": host, **(headers or {})}, timeout, source)


def follow(cluster: Cluster, url: str) -> tuple[int, bytes]:
    """GET a link of a mail, at the ingress whatever its name resolves to here."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(cluster.ingress, timeout=120)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()


def reachable() -> Cluster | None:
    """The cluster that the environment names, if it names one."""
    ingress = os.environ.get("CLUSTER_INGRESS")
    return Cluster(os.environ.get("KUBECTL", "kubectl"), ingress) if ingress else None
