"""Gives tests access to a cluster that ``./scripts/deploy`` has deployed mp3burst to.

The variable CLUSTER_INGRESS is HOST:PORT of Kourier; KUBECTL is the kubectl command, as for ``./scripts/deploy``.
"""

import contextlib
import email
import email.message
import email.policy
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode, urlsplit

from events.http import UnixConnection
from tests.e2e.client import Answer, Client
from tests.support.processes import wait_for

T = TypeVar("T")

#: Seconds that a test waits for anything. Two idle CPUs need a tenth: cold starts one after another take seconds, and a
#: killed worker is replaced after half a minute. Machines that test are slower and have more to do.
TIMEOUT = 300.0
#: The function of each path, as in the manifests.
FUNCTIONS = {
    "register": "register",
    "login": "login",
    ".well-known": "login",
    "validate": "validate",
    "upload": "upload",
    "files": "upload",
    "jobs": "status",
    "jobs.zip": "download",
    "download": "download",
}
#: Mailpit's API, through the API server.
_MAIL_API = "/api/v1/namespaces/mp3burst/services/mail:8025/proxy/api/v1"
_CORE = "/api/v1/namespaces/mp3burst"
_SERVING = "/apis/serving.knative.dev/v1/namespaces/mp3burst"


def until(probe: Callable[[], T], what: str, seconds: float = TIMEOUT) -> T:
    """Waits for something on the cluster and returns it."""
    return wait_for(probe, what, seconds, every=0.5)


class Api:
    """Reads from the API server through ``kubectl proxy``, in milliseconds. kubectl takes a third of a CPU-second."""

    def __init__(self, kubectl: Sequence[str]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mp3burst-"))
        self.socket = folder / "api.sock"
        command = [*kubectl, "proxy", f"--unix-socket={self.socket}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        weakref.finalize(self, _stop, process, folder)
        wait_for(self.socket.exists, "kubectl proxy")

    def get(self, path: str, **query: str) -> bytes:
        """Returns the body of an answer."""
        with contextlib.closing(UnixConnection(self.socket, timeout=60)) as connection:
            connection.request("GET", f"{path}?{urlencode(query)}" if query else path)
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status == 200, body
        return body

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Returns the objects of a list."""
        found: list[dict[str, Any]] = json.loads(self.get(path, **query))["items"]
        return found


def _stop(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    shutil.rmtree(folder)


class Cluster:
    """Calls kubectl in mp3burst's namespace, and reads what tests wait for without it."""

    def __init__(self, kubectl: str, ingress: str) -> None:
        self._kubectl = shlex.split(kubectl)
        self.ingress = ingress
        self.users: list[User] = []

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return self._run(arguments, stdin).stdout

    def warnings(self, *arguments: str, stdin: str = "") -> str:
        """Runs kubectl and returns its standard error."""
        return self._run(arguments, stdin).stderr

    def _run(self, arguments: Sequence[str], stdin: str) -> "subprocess.CompletedProcess[str]":
        command = [*self._kubectl, "--namespace", "mp3burst", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    @cached_property
    def api(self) -> Api:
        return Api(self._kubectl)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *arguments, "-o", "json"))["items"]
        return found

    def hosts(self) -> dict[str, str]:
        """Returns the host name of each function."""
        found = self.api.items(f"{_SERVING}/services")
        return {each["metadata"]["name"]: urlsplit(each["status"]["url"]).netloc for each in found}

    def pods(self, function: str = "") -> list[str]:
        """Returns the pods of a function, or of all functions, that are neither terminating nor evicted."""
        label = "serving.knative.dev/service" + (f"={function}" if function else "")
        pods = self.api.items(f"{_CORE}/pods", labelSelector=label, fieldSelector="status.phase!=Failed")
        found = [each["metadata"] for each in pods]
        return [each["name"] for each in found if "deletionTimestamp" not in each]

    def await_termination(self, function: str) -> None:
        """Waits until one of the current pods of a function terminates."""
        before = {*self.pods(function)}
        assert before, f"{function} has no pod"
        until(lambda: before - {*self.pods(function)}, f"the end of a pod of {function}")

    def peak_rss(self, function: str) -> int:
        """Returns the peak memory of a process in a function's pods, in bytes (proc(5), VmHWM)."""
        command = "cat /proc/[0-9]*/status"
        text = "".join(
            self.kubectl("exec", pod, "-c", "user-container", "--", "sh", "-c", command) for pod in self.pods(function)
        )
        return max(int(kilobytes) << 10 for kilobytes in re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE))

    def await_zero(self) -> None:
        """Waits until no function has a pod."""
        until(lambda: not self.pods(), "scaled to zero")

    def places(self, function: str) -> int:
        """Returns how many events a function handles at once in all its pods."""
        (service,) = self.get("services.serving.knative.dev", f"--field-selector=metadata.name={function}")
        (container,) = service["spec"]["template"]["spec"]["containers"]
        (places,) = (each["value"] for each in container["env"] if each["name"] == "PLACES")
        return int(places)

    def delete_unfinished_jobs(self) -> None:
        """Deletes what the users of a test have left, and forgets these users."""
        users, self.users = self.users, []
        for user in users:
            user.delete_unfinished_jobs()

    def evictions(self, pod: str) -> list[str]:
        """Returns the reasons why a pod was evicted."""
        events = self.api.items(f"{_CORE}/events", fieldSelector=f"reason=Evicted,involvedObject.name={pod}")
        return [event["message"] for event in events]

    def sweep(self) -> None:
        """Makes sweep run now, beside those that its schedule starts."""
        self.kubectl("create", "job", f"sweep-{secrets.token_hex(4)}", "--from=cronjob/sweep")

    def mail_ids(self, address: str) -> list[str]:
        """Returns the ids of the mails to an address."""
        heads = json.loads(self.api.get(f"{_MAIL_API}/messages", limit="1000"))["messages"]
        return [head["ID"] for head in heads if address in [to["Address"] for to in head["To"]]]

    def mails(self, address: str) -> list[email.message.EmailMessage]:
        """Returns the mails to an address."""
        raw = [self.api.get(f"{_MAIL_API}/message/{one}/raw") for one in self.mail_ids(address)]
        return [email.message_from_bytes(text, policy=email.policy.default) for text in raw]


class User(Client):
    """A user whose calls go to Kourier, with the gateway's host name or with each function's own."""

    hosts: Mapping[str, str] = {}
    gateway: bool = True

    @classmethod
    def of(cls, cluster: Cluster, gateway: bool = True) -> Self:
        """Returns a new user who is logged in."""
        kind = type("User", (cls,), {"hosts": cluster.hosts(), "gateway": gateway})
        made: Self = kind(f"http://{cluster.ingress}").sign_up()
        cluster.users.append(made)
        return made

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str | None] | None = None,
        timeout: float = TIMEOUT,
        source: str | None = None,
    ) -> Answer:
        function = "gateway" if self.gateway else FUNCTIONS[path.lstrip("/").partition("?")[0].partition("/")[0]]
        host = self.hosts[function]
        return super().call(method, path, body, {"Host": host, **(headers or {})}, max(timeout, TIMEOUT), source)

    def wait(self, job: str, seconds: float = TIMEOUT) -> dict[str, Any]:
        return super().wait(job, seconds)

    def delete_unfinished_jobs(self) -> None:
        """Deletes jobs, the newest first: whoever works on one starts the next that is left."""
        answer = self.call("GET", "/jobs?limit=100")
        if answer.status == 401:
            return  # the test has ended the session
        unfinished = [job["job"] for job in answer.json()["jobs"] if job["status"] not in ("done", "failed")]
        answers = [self.call("DELETE", f"/jobs/{job}") for job in unfinished]
        assert [each for each in answers if each.status not in (204, 404)] == []


def follow(cluster: Cluster, url: str) -> tuple[int, bytes]:
    """Opens a link of a mail at the ingress, whatever its host name resolves to; returns the status and the body."""
    parts = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(cluster.ingress, timeout=TIMEOUT)) as connection:
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()


def reachable() -> Cluster | None:
    """Returns the cluster that the variables name, or None."""
    ingress = os.environ.get("CLUSTER_INGRESS")
    return Cluster(os.environ.get("KUBECTL", "kubectl"), ingress) if ingress else None
