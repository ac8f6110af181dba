"""The embedded platform as a process, running the small functions of samples.py."""

import http.client
import itertools
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from events.publish import publisher
from events.schema import JobId, VideoUploaded
from infra import front
from tests.e2e.client import Client
from tests.support.platform import Platform, start
from tests.support.processes import descendants, is_alive, most_lines_since, wait_for
from tests.support.servers import free_port
from tests.support.servers.nginx import CarelessProxy

SAMPLES = Path(__file__).with_name("samples.py")
#: Bytes of memory that a process may use at its peak, whatever passes through it.
MAX_MEMORY = 120 << 20
#: Bytes of a body that must not be in memory.
LARGE = 4 * MAX_MEMORY


def service(name: str, notes: Path, target: str, **options: Any) -> dict[str, Any]:
    scaling = {f"autoscaling.knative.dev/{key}": value for key, value in options.get("scaling", {}).items()}
    env = [{"name": "FUNCTION_TARGET", "value": target}, {"name": "FUNCTION_SOURCE", "value": str(SAMPLES)}]
    env.append({"name": "NOTES", "value": str(notes)})
    container = {"image": "none", "env": env + options.get("env", []), "envFrom": options.get("env_from", [])}
    spec = {"containers": [container], "containerConcurrency": options.get("concurrency", 4)}
    labels = {} if options.get("paths") else {"networking.knative.dev/visibility": "cluster-local"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels, "annotations": {"mp3burst.dev/paths": options.get("paths", "")}},
        "spec": {
            "template": {
                "metadata": {"annotations": scaling},
                "spec": {"timeoutSeconds": options.get("timeout", 60), **spec},
            }
        },
    }


def eventing(retry: int = 2, parallelism: str = "2") -> list[dict[str, Any]]:
    sink = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "bury"}}
    delivery = {"retry": retry, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S", "deadLetterSink": sink}
    annotations = {"rabbitmq.eventing.knative.dev/parallelism": parallelism}
    subscriber = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "handle"}}
    spec = {"broker": "b", "filter": {"attributes": {"type": "test.event"}}, "subscriber": subscriber}
    group = "eventing.knative.dev/v1"
    return [
        {"apiVersion": group, "kind": "Broker", "metadata": {"name": "b"}, "spec": {"delivery": delivery}},
        {"apiVersion": group, "kind": "Trigger", "metadata": {"name": "t", "annotations": annotations}, "spec": spec},
    ]


class Notes:
    """The files that the functions write, and those they wait for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def lines(self, name: str) -> list[Any]:
        """Returns the lines of a file, JSON decoded; none if it does not exist."""
        path = self.directory / name
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) if line.startswith("[") else line for line in text.splitlines()]

    def create(self, name: str = "go") -> None:
        """Creates a file that a function waits for."""
        (self.directory / name).touch()


def write(directory: Path, *documents: dict[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "all.yaml").write_text("\n---\n".join(json.dumps(document) for document in documents))
    return directory


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture
def run(tmp_path: Path, notes: Notes) -> Iterator[Callable[..., Platform]]:
    """Returns a function that starts a platform, each time with the same data directory."""
    started: list[Platform] = []

    def begin(*documents: dict[str, Any], **options: Any) -> Platform:
        usual = [service("web", notes.directory, "web", paths="/web")]
        manifests = write(tmp_path / "manifests", *(documents or usual))
        started.append(start(tmp_path / "data", manifests=manifests, **options))
        return started[-1]

    yield begin
    for platform in started:
        platform.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with one function, for tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("shared")
    notes = Notes(directory / "notes")
    manifests = write(directory / "manifests", service("web", notes.directory, "web", paths="/web"))
    with start(directory / "data", manifests=manifests) as platform:
        yield platform


@pytest.fixture
def eventing_documents(notes: Notes) -> list[dict[str, Any]]:
    scaling = {"window": "6s"}
    return [
        service("handle", notes.directory, "handle", scaling=scaling),
        service("bury", notes.directory, "bury", scaling=scaling),
        *eventing(),
    ]


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def publish(platform: Platform, id_: str, **changed: str) -> int:
    attributes = {"ce-id": id_, "ce-type": "test.event", "ce-source": "/test", "ce-specversion": "1.0"}
    headers = {"content-type": "application/json", **attributes, **{f"ce-{k}": v for k, v in changed.items()}}
    connection = platform.pages(timeout=30)
    connection.request("POST", "/_broker", b'{"job": "1"}', {name: value for name, value in headers.items() if value})
    with connection.getresponse() as answer:
        answer.read()
    connection.close()
    return answer.status


def peak(pid: int) -> int:
    """Returns the process's peak memory, in bytes."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_function_starts_on_demand_and_stops_when_idle(run: Callable[..., Platform]) -> None:
    platform = run(idle=0.5)
    assert platform.instances("web") == []
    first = json.loads(get(f"{platform.url}/web")[1])["pid"]
    [instance] = platform.instances("web")
    assert instance["state"] == "ready"
    wait_for(lambda: not platform.instances("web"), "the idle instance to stop")
    assert not is_alive(first)
    assert not is_alive(instance["pid"])
    assert json.loads(get(f"{platform.url}/web")[1])["pid"] != first


def test_min_scale_is_maintained(run: Callable[..., Platform], notes: Notes) -> None:
    kept = service("web", notes.directory, "web", paths="/web", scaling={"min-scale": "1"})
    platform = run(kept, idle=0.2)
    [instance] = wait_for(lambda: [i for i in platform.instances("web") if i["state"] == "ready"], "the first instance")
    wait_for(lambda: platform.instances("web")[0]["idle_seconds"] > 0.5, "the idle window to pass")
    os.kill(instance["pid"], signal.SIGKILL)

    def others() -> list[int]:
        return [i["pid"] for i in platform.instances("web") if i["state"] == "ready" and i["pid"] != instance["pid"]]

    assert wait_for(others, "another instance")
    assert get(f"{platform.url}/web")[0] == 200


def test_load_scales_up_to_max_scale(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run(service("web", notes.directory, "web", paths="/web", concurrency=2, scaling={"max-scale": "2"}))
    with ThreadPoolExecutor(6) as threads:
        answers = [threads.submit(get, f"{platform.url}/web/wait?file=go") for _ in range(6)]
        wait_for(lambda: len(notes.lines("wait")) == 4, "four requests to run")
        report = platform.status()["functions"]["web"]
        assert [instance["inflight"] for instance in report["instances"]] == [2, 2]
        assert report["queued"] == 2
        assert len(set(notes.lines("wait"))) == 2
        notes.create()
        assert [answer.result() for answer in answers] == [(200, b"done")] * 6


def test_cpu_work_gets_no_more_than_two_instances_per_cpu(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run(service("web", notes.directory, "web", paths="/web", concurrency=1, scaling={"max-scale": "50"}))
    most = 2 * len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(most + 2) as threads:
        answers = [threads.submit(get, f"{platform.url}/web/wait?file=go") for _ in range(most + 2)]
        wait_for(
            lambda: len(notes.lines("wait")) == most and platform.status()["functions"]["web"]["queued"] == 2, "queue"
        )
        assert len(platform.instances("web")) == most
        notes.create()
        assert all(answer.result()[0] == 200 for answer in answers)


def peaks(platform: Platform) -> list[int]:
    """Returns the peak memory of the platform and of each function, in bytes."""
    return [peak(pid) for pid in (platform.process.pid, *descendants(platform.process.pid))]


@pytest.mark.parametrize("chunked", [False, True])
def test_large_upload_uses_little_memory(shared: Platform, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=60)
    block = bytes(1 << 20)
    headers = {} if chunked else {"Content-Length": str(LARGE)}
    connection.request("POST", "/web/count", (block for _ in range(LARGE >> 20)), headers, encode_chunked=chunked)
    assert connection.getresponse().read() == str(LARGE).encode()
    connection.close()
    assert max(peaks(shared)) < MAX_MEMORY


def test_large_download_uses_little_memory(shared: Platform) -> None:
    size = 0
    with urllib.request.urlopen(f"{shared.url}/web/flood?bytes={LARGE}", timeout=60) as answer:
        assert answer.headers["Content-Length"] == str(LARGE)
        while chunk := answer.read(1 << 20):
            size += len(chunk)
    assert size == LARGE
    assert max(peaks(shared)) < MAX_MEMORY


@pytest.mark.parametrize("attempt", range(5))
def test_rejection_reaches_a_client_that_sends_everything_first(shared: Platform, attempt: int) -> None:
    assert get(f"{shared.url}/web")[0] == 200
    size = (attempt + 1) * (20 << 20)
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as client:
        client.sendall(b"POST /web/early HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            client.sendall(bytes(1 << 20))
        assert client.recv(100).startswith(b"HTTP/1.1 401")
    assert max(peaks(shared)) < MAX_MEMORY


def test_rejection_arrives_before_the_body_is_sent(shared: Platform) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as client:
        client.sendall(b"POST /web/early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nabc")
        assert client.recv(100).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "request_", [b"Content-Length: 1000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
)
def test_truncated_upload_never_looks_complete(run: Callable[..., Platform], notes: Notes, request_: bytes) -> None:
    streamed = {"name": "BUFFERED_BODY_BYTES", "value": "0"}
    platform = run(service("web", notes.directory, "web", paths="/web", env=[streamed]))
    assert get(f"{platform.url}/web")[0] == 200
    with socket.create_connection(("127.0.0.1", platform.port)) as client:
        client.sendall(b"POST /web/count HTTP/1.1\r\nHost: localhost\r\n" + request_)
        wait_for(lambda: platform.instances("web")[0]["inflight"], "the request to arrive")
    assert wait_for(lambda: notes.lines("count"), "the function to notice") == ["broken"]
    wait_for(lambda: not platform.instances("web")[0]["inflight"], "the slot to be free again")


def test_disconnect_ends_the_download(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run()
    with urllib.request.urlopen(f"{platform.url}/web/flood?bytes={LARGE}", timeout=60) as answer:
        assert len(answer.read(1000)) == 1000
    assert wait_for(lambda: notes.lines("flood"), "the function to notice") == ["disconnected"]


def test_headers_and_bodies_pass_unchanged(shared: Platform) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=30)

    def ask(method: str, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    answer, body = ask("HEAD", "/web/flood?bytes=1048576")
    assert (answer.status, answer.headers["Content-Length"], body) == (200, "1048576", b"")
    answer, body = ask("GET", "/web/cached")
    assert (answer.status, answer.headers["ETag"], body) == (304, '"a"', b"")
    answer, body = ask("GET", "/web/ranged", Range="bytes=1-2")
    assert (answer.status, answer.headers["Content-Range"], body) == (206, "bytes 1-2/3", b"bc")
    answer, body = ask("GET", "/web/gzip")
    assert (answer.headers["Content-Encoding"], answer.headers["Set-Cookie"], body) == (
        "gzip",
        "a=b",
        b"not really gzip",
    )
    answer, body = ask(
        "GET",
        "/web/a%2Fb%20c?d=%26",
        **{"X-Forwarded-For": "192.0.2.1", "Remote-Email": "a@b.org", "Connection": "x-hop", "X-Hop": "1"},
    )
    seen = json.loads(body)
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert seen["path"] == "/web/a/b c?d=%26"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"] == f"127.0.0.1:{shared.port}"
    assert not headers.keys() & {"x-hop", "user-agent", "accept", "content-type", "remote-email"}
    connection.close()


def test_expect_100_continue_is_answered(shared: Platform) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as client:
        client.sendall(b"POST /web/count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_requests_are_routed_by_path_and_host(run: Callable[..., Platform], notes: Notes) -> None:
    names = {"web": "/web,/.well-known/x", "deep": "/web/deep", "inner": ""}
    platform = run(*(service(name, notes.directory, "web", paths=paths) for name, paths in names.items()))

    def served(path: str, **headers: str) -> str | int:
        status, body = get(f"{platform.url}{path}", **headers)
        return json.loads(body)["env"]["K_SERVICE"] if status == 200 else status

    assert served("/web") == served("/web/x") == served("/.well-known/x?a=/web/deep") == "web"
    assert served("/web/deep") == served("/web/deep/er") == "deep"
    assert served("/webx") == served("/inner") == 404
    assert served("/anything", Host="deep.localhost") == served("/", Host=f"deep.localhost:{platform.port}") == "deep"
    assert served("/", Host="inner.localhost") == served("/web", Host="none.localhost") == 404
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{platform.url}/nowhere")
    with caught.value as error:
        assert error.headers["Content-Type"] == "application/problem+json"
        assert json.load(error).keys() == {"type", "title", "status", "detail"}


def test_own_pages_are_on_a_socket_of_the_data_directory_only(
    run: Callable[..., Platform], eventing_documents: list[dict[str, Any]], notes: Notes, tmp_path: Path
) -> None:
    web = service("web", notes.directory, "web", paths="/web")
    platform = run(web, *eventing_documents)
    attributes = {"ce-id": "1", "ce-type": "test.event", "ce-source": "/test", "ce-specversion": "1.0"}
    with CarelessProxy(platform.port) as proxy:
        assert get(f"{proxy.url}/web")[0] == 200
        for url in (proxy.url, platform.url, f"http://127.0.0.1:{platform.port}"):
            for page in ("/_platform", "/_broker", "/_functions/handle"):
                assert get(f"{url}{page}", **attributes)[0] == 404
    assert publish(platform, "2") == 202
    wait_for(lambda: notes.lines("handle"), "the event")
    assert [line[0] for line in notes.lines("handle")] == ["2"]
    mode = (tmp_path / "data" / "platform.sock").stat().st_mode
    assert (stat.S_ISSOCK(mode), mode & 0o777) == (True, 0o600)


def test_data_directory_may_have_any_name(eventing_documents: list[dict[str, Any]], tmp_path: Path) -> None:
    """The address of a Unix socket has at most 108 bytes, and the path is part of two URLs."""
    data = tmp_path / ("long/" * 25) / "a:b@c d%2F;e=ä?f#g"
    data.parent.mkdir(parents=True)
    with start(data, manifests=write(tmp_path / "manifests", *eventing_documents)) as platform:
        publisher({"K_SINK": platform.sink}, "/test")(VideoUploaded(JobId("0123456789abcdef0123456789abcdef")), 10)
        assert platform.status()["queues"].keys() == {"t"}


def test_function_gets_only_the_variables_its_manifest_lists(
    run: Callable[..., Platform], notes: Notes, tmp_path: Path
) -> None:
    def ref(kind: str, name: str, key: str, **more: Any) -> dict[str, Any]:
        return {"name": key.lower(), "valueFrom": {kind: {"name": name, "key": key, **more}}}

    env = [ref("secretKeyRef", "links", "LINK_KEY"), ref("configMapKeyRef", "mp3burst", "KEEP_DAYS", optional=True)]
    env_from: list[dict[str, Any]] = [
        {"configMapRef": {"name": "mp3burst"}},
        {"secretRef": {"name": "mail"}},
        {"secretRef": {"name": "nobody", "optional": True}},
    ]
    function = service("web", notes.directory, "web", paths="/web", env=env, env_from=env_from)
    given = {"SMTP_HOST": "mail.example.org", "LINK_DAYS": "3", "AWS_SECRET": "x", "PYTHONHASHSEED": "0"}
    platform = run(function, env=given)
    seen = json.loads(get(f"{platform.url}/web")[1])["env"]
    assert seen["SMTP_HOST"] == "mail.example.org"
    assert seen["LINK_DAYS"] == "3"
    assert seen["link_key"] == (tmp_path / "data" / "keys" / "link").read_text()
    assert seen["PUBLIC_URL"] == platform.url
    assert seen["TOKEN_PUBLIC_KEYS"].startswith("-----BEGIN PUBLIC KEY-----")
    assert seen["K_SINK"] == platform.sink
    absent = {"AWS_SECRET", "PYTHONHASHSEED", "MAIL_DIR", "LINK_KEY", "TOKEN_PRIVATE_KEY", "DATABASE_URL", "keep_days"}
    assert not seen.keys() & absent
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data" / "keys").iterdir()}
    assert modes == {"link": 0o600, "log": 0o600, "token-private.pem": 0o600, "webhook": 0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_function_that_cannot_start_is_reported(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run(service("web", notes.directory, "nothing", paths="/web"))
    status, body = get(f"{platform.url}/web")
    assert status == 503
    assert json.loads(body)["detail"] == "The function web does not start: try again later. Its log says why."
    assert "web: There is no function nothing in" in platform.output()
    assert get(f"{platform.url}/web")[0] == 503


def test_failure_details_appear_only_in_the_log(run: Callable[..., Platform]) -> None:
    platform = run()
    status, body = get(f"{platform.url}/web/boom")
    assert status == 500
    assert b"secret" not in body
    wait_for(lambda: "a secret" in platform.output(), "the cause in the log")
    assert get(f"{platform.url}/web/die")[0] == 502


def test_response_is_limited_to_timeout_seconds(run: Callable[..., Platform], notes: Notes) -> None:
    function = service("web", notes.directory, "web", paths="/web", timeout=1, scaling={"min-scale": "1"})
    platform = run(function)
    # Started before the request: a slow start would use up the second that a request waits for an instance.
    wait_for(lambda: platform.instances("web")[0]["state"] == "ready", "the instance")
    assert get(f"{platform.url}/web/wait?file=go")[0] == 504
    with pytest.raises(http.client.IncompleteRead), urllib.request.urlopen(f"{platform.url}/web/drip") as answer:
        answer.read()
    notes.create()


def test_events_reach_functions_with_matching_triggers(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    platform = run(*eventing_documents)
    assert publish(platform, "a") == 202
    assert publish(platform, "other", type="test.other") == 202
    [[id_, type_, data, _]] = wait_for(lambda: notes.lines("handle"), "the event")
    assert (id_, type_, data) == ("a", "test.event", {"job": "1"})
    wait_for(lambda: set(platform.status()["queues"]["t"].values()) == {0}, "the queue to be empty")
    for name in ("id", "type", "source", "specversion"):
        assert publish(platform, "b", **{name: ""}) == 400
    assert publish(platform, "b", specversion="0.3") == 400
    assert len(notes.lines("handle")) == 1


def test_failing_event_is_retried_then_dead_lettered(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    platform = run(*eventing_documents)
    assert publish(platform, "never:1") == 202
    assert publish(platform, "wrong:1") == 202
    [buried] = wait_for(lambda: notes.lines("bury"), "the dead letter")
    assert buried == ["never:1", "http://handle.mp3burst.svc.cluster.local/", "503"]
    times = [time for id_, _, _, time in notes.lines("handle") if id_ == "never:1"]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.2
    assert times[2] - times[1] >= 0.4
    wait_for(lambda: set(platform.status()["queues"]["t"].values()) == {0}, "the queue to be empty")
    assert [id_ for id_, *_ in notes.lines("handle")].count("wrong:1") == 1
    [letter] = platform.status()["dead_letters"]
    assert (letter["event"]["ce-id"], letter["error"], letter["data"]) == ("never:1", 503, '{"job": "1"}')
    platform.stop()
    assert run(*eventing_documents).status()["dead_letters"] == [letter]


def test_parallelism_limits_concurrent_events(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    platform = run(*eventing_documents)
    for number in range(5):
        publish(platform, f"wait:{number}")
    wait_for(lambda: len(notes.lines("handle")) == 2, "two events to run")
    assert platform.status()["queues"]["t"] == {"ready": 3, "inflight": 2, "retrying": 0}
    notes.create()
    wait_for(lambda: len(notes.lines("handled")) == 5, "all to be handled")
    assert len(notes.lines("handle")) == 5


def test_event_is_redelivered_after_its_instance_is_killed(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    platform = run(*eventing_documents)
    publish(platform, "wait:1")
    wait_for(lambda: notes.lines("handle"), "the event to run")
    [instance] = platform.instances("handle")
    worker = descendants(instance["pid"])
    os.kill(instance["pid"], signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, worker)), "the worker to die with its master")
    notes.create()
    wait_for(lambda: notes.lines("handled"), "the second delivery")
    assert len(notes.lines("handle")) == 2


def test_killed_platform_loses_no_event(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    platform = run(*eventing_documents)
    for number in range(4):
        publish(platform, f"wait:{number}")
    publish(platform, "never:1")
    wait_for(lambda: len(notes.lines("handle")) >= 2, "events to run")
    processes = descendants(platform.process.pid)
    assert processes
    platform.kill()
    wait_for(lambda: not any(map(is_alive, processes)), "every process to die with the platform")
    notes.create()
    run(*eventing_documents)
    wait_for(lambda: len(set(notes.lines("handled"))) == 4, "every event")
    wait_for(lambda: notes.lines("bury"), "the dead letter")


def test_burst_may_exceed_the_soft_limit_of_open_files(run: Callable[..., Platform]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        platform = run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", platform.port)))
        assert get(f"{platform.url}/web/pid")[0] == 200


def test_event_waits_while_no_files_can_be_opened(
    run: Callable[..., Platform], eventing_documents: list[dict[str, Any]], notes: Notes
) -> None:
    platform = run(*eventing_documents[:2], *eventing(retry=9, parallelism="1"))
    connection = platform.pages(timeout=30)
    connection.request("GET", "/_platform")
    with connection.getresponse() as answer:
        answer.read()
    # The limit is the lowest free descriptor, so no further one can be opened.
    used = {int(path.name) for path in Path(f"/proc/{platform.process.pid}/fd").iterdir()}
    free = next(number for number in itertools.count() if number not in used)
    _, hard = resource.prlimit(platform.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(platform.process.pid, resource.RLIMIT_NOFILE, (free, hard))
    attributes = {"ce-id": "1", "ce-type": "test.event", "ce-source": "/test", "ce-specversion": "1.0"}
    connection.request("POST", "/_broker", b"{}", attributes)
    with connection.getresponse() as answer:
        assert answer.status == 202
    wait_for(lambda: "Too many open files" in platform.output(), "the limit to be reached")
    resource.prlimit(platform.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    connection.close()
    wait_for(lambda: notes.lines("handle"), "the event")


def test_ping_is_sent_at_the_start(
    run: Callable[..., Platform], notes: Notes, eventing_documents: list[dict[str, Any]]
) -> None:
    spec = {"schedule": "0 0 1 1 *", "data": '{"a": 1}', "sink": {"uri": "http://handle.mp3burst.svc.cluster.local/x"}}
    source = {"apiVersion": "sources.knative.dev/v1", "kind": "PingSource", "metadata": {"name": "p"}, "spec": spec}
    run(*eventing_documents, source)
    [[_, type_, data, _]] = wait_for(lambda: notes.lines("handle"), "the ping")
    assert (type_, data) == ("dev.knative.sources.ping", {"a": 1})


def test_sigterm_lets_running_requests_finish(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(get, f"{platform.url}/web/wait?file=go")
        wait_for(lambda: notes.lines("wait"), "the request to run")
        processes = descendants(platform.process.pid)
        platform.process.terminate()
        wait_for(lambda: get(f"{platform.url}/web")[0] == 503, "new requests to be refused")
        notes.create()
        assert answer.result() == (200, b"done")
    assert platform.process.wait(20) == 0
    assert not any(map(is_alive, processes))


def test_stream_of_events_does_not_delay_the_end(tmp_path: Path) -> None:
    """As a page has one open all the time."""
    with start(tmp_path / "data") as platform:
        me = Client(platform.url).sign_up()
        request = urllib.request.Request(f"{platform.url}/jobs/events", headers={"Authorization": f"Bearer {me.token}"})
        with urllib.request.urlopen(request, timeout=30) as stream:
            assert stream.readline()
            assert platform.stop(15) == 0


def test_second_signal_skips_draining(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run()
    thread = threading.Thread(target=lambda: get_or_none(f"{platform.url}/web/wait?file=go"))
    thread.start()
    wait_for(lambda: notes.lines("wait"), "the request to run")
    processes = descendants(platform.process.pid)
    platform.process.send_signal(signal.SIGINT)
    wait_for(lambda: get(f"{platform.url}/web")[0] == 503, "the platform to drain")
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(10) == 0
    thread.join(10)
    assert not any(map(is_alive, processes))


def get_or_none(url: str) -> tuple[int, bytes] | None:
    try:
        return get(url)
    except (OSError, http.client.HTTPException):
        return None


WRONG = [
    ("MAX_UPLOAD_BYTES", "10G"),
    ("QUOTA_JOBS", "many"),
    ("ENCODERS", "all"),
    ("FFMPEG", "/nowhere/ffmpeg"),
    ("LINK_KEY", "secret"),
    ("AMQP_URL", "rabbitmq"),
    ("AMQP_URL", "amqp://me:secret/1@rabbitmq:5672/"),
]


def startup_error(data: Path, *options: str, **env: str) -> str:
    command = [sys.executable, "-m", "infra.local", "--data", str(data), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, **env})
    assert result.returncode == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


def test_start_failure_gives_one_line(run: Callable[..., Platform], tmp_path: Path, notes: Notes) -> None:
    platform = run()
    port = str(platform.port)
    (tmp_path / "file").touch()
    with ThreadPoolExecutor(2) as threads:

        def failing(directory: str, *options: str, **env: str) -> Future[str]:
            return threads.submit(startup_error, tmp_path / directory, *options, **env)

        wrong = [
            (name, failing(f"wrong {number}", "--port", "0", **{name: value}))
            for number, (name, value) in enumerate(WRONG)
        ]
        assert failing("other", "--port", port).result().startswith(f"Port {port} is in use: ")
        assert failing("other", "--port", "70000").result().startswith("Port 70000 cannot be used here: ")
        assert "is already running on" in failing("data", "--port", str(free_port())).result()
        assert "JWT_SECRET is not used" in failing("other", "--port", "0", JWT_SECRET="sarcasm").result()
        assert "Cannot write to" in failing("file", "--port", "0").result()
        empty = failing("other", "--port", "0", "--manifests", str(notes.directory))
        assert "no Knative Service" in empty.result()
        for name, error in wrong:
            assert error.result().startswith(f"{name} ")
            assert "secret" not in error.result()


def connect(platform: Platform, request: bytes, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", platform.port), timeout=30, source_address=(source, 0))
    connection.sendall(request)
    return connection


def response(connection: socket.socket) -> tuple[int, http.client.HTTPMessage, bytes]:
    found = http.client.HTTPResponse(connection)
    found.begin()
    return found.status, found.headers, found.read()


def test_unfinished_requests_take_no_place(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run(service("web", notes.directory, "web", paths="/web", concurrency=1, scaling={"max-scale": "1"}))
    unfinished = (
        b"GET /web HTTP/1.1\r\nHost: h\r\nX-More",
        b"POST /web/count HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n.",
        b"POST /web/count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    )
    with ExitStack() as stack:
        attackers = [stack.enter_context(connect(platform, request)) for request in 2 * unfinished]
        assert get(f"{platform.url}/web")[0] == 200
        attackers[1].sendall(bytes(999))
        assert response(attackers[1])[2] == b"1000"
        attackers[2].sendall(b"de\r\n0\r\n\r\n")
        assert response(attackers[2])[2] == b"5"


def test_malformed_requests_are_problems_and_are_not_repeated(shared: Platform) -> None:
    requests = {
        b"secret\r\n\r\n": 400,
        b"GET /web HTTP/1.1\r\nHost: h\r\nsecret secret\r\n\r\n": 400,
        b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n" % (b"secret" * 3000): 414,
        b"GET /web HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n" % (b"secret" * 3000): 431,
        b"GET /web HTTP/1.1\r\nHost: h\r\n%s\r\n" % (b"A: secret\r\n" * 200): 431,
    }
    began = time.monotonic()
    for request, status in requests.items():
        for _ in range(20):
            with connect(shared, request) as connection:
                found, headers, text = response(connection)
            assert (found, json.loads(text)["status"]) == (status, status)
            assert headers["Content-Type"] == "application/problem+json"
            assert b"secret" not in text
    log = shared.output()
    assert 0 < log.count("Refused a request with") <= most_lines_since(began)
    assert "secret" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_long_paths_and_headers_reach_the_function(shared: Platform, method: str) -> None:
    """gunicorn's own limit was 4,094 bytes, and its answer to a HEAD request became a 502."""
    request = f"{method} /web?{'a' * 8000} HTTP/1.1\r\nHost: h\r\nA: {'a' * 8000}\r\nConnection: close\r\n\r\n"
    with connect(shared, request.encode()) as connection:
        data = b""
        while more := connection.recv(1 << 16):
            data += more
    assert data.startswith(b"HTTP/1.1 200 ")
    assert (b"a" * 8000 in data) == (method == "GET")


def test_a_network_has_a_limited_number_of_requests(run: Callable[..., Platform], notes: Notes) -> None:
    platform = run(service("web", notes.directory, "web", paths="/web", concurrency=1, scaling={"max-scale": "1"}))
    wait = b"GET /web/wait?file=go HTTP/1.1\r\nHost: h\r\n\r\n"
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(platform, wait)) for _ in range(front.REQUESTS_AT_ONCE)]
        wait_for(lambda: platform.status()["functions"]["web"]["queued"] == len(waiting) - 1, "the requests")
        with connect(platform, wait) as refused:
            status, headers, text = response(refused)
        assert (status, headers["Retry-After"]) == (429, "5")
        assert json.loads(text)["detail"] == front.MESSAGES[429]
        other = stack.enter_context(connect(platform, wait, source="127.0.0.2"))
        notes.create()
        assert {response(each)[0] for each in [*waiting, other]} == {200}


def test_idle_connections_do_not_keep_others_out(run: Callable[..., Platform]) -> None:
    platform = run()
    assert get(f"{platform.url}/web")[0] == 200
    resource.prlimit(platform.process.pid, resource.RLIMIT_NOFILE, (160, 160))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(platform, b""))
        assert get(f"{platform.url}/web")[0] == 200


def test_without_file_descriptors_connections_wait_and_one_line_a_second_is_logged(
    run: Callable[..., Platform],
) -> None:
    platform = run()
    assert get(f"{platform.url}/web")[0] == 200
    pid = platform.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    began = time.monotonic()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, usual[1]))
    with connect(platform, b"GET /web HTTP/1.1\r\nHost: h\r\n\r\n") as connection:
        wait_for(lambda: platform.output().count("New connections wait: Too many") > 1, "the lines in the log")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        assert response(connection)[0] == 200
    assert platform.output().count("New connections wait") <= most_lines_since(began)
    assert "more in the meantime" not in platform.output(), "it does not pause between two attempts"
    assert "Traceback" not in platform.output()


def test_without_a_file_descriptor_for_the_function_its_instance_is_kept(run: Callable[..., Platform]) -> None:
    platform = run()
    assert get(f"{platform.url}/web")[0] == 200
    [instance] = platform.instances("web")
    pid = platform.process.pid
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    looks: list[set[int]] = [set()]

    def settled() -> bool:
        looks.append({int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()})
        return looks[-1] == looks[-2]

    # The platform closes the connections of the calls above a moment after their responses.
    wait_for(settled, "the earlier connections to be closed", every=0.3)
    first = next(number for number in itertools.count() if number not in looks[-1])
    with connect(platform, b"GET /web HTTP/1.1\r\n") as connection:
        # The connection has the first free descriptor, so there is none for one to the function.
        wait_for(lambda: Path(f"/proc/{pid}/fd/{first}").exists(), "the connection to be accepted")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (first + 1, usual[1]))
        connection.sendall(b"Host: h\r\n\r\n")
        status, headers, _ = response(connection)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
    assert (status, headers["Content-Type"]) == (503, "application/problem+json")
    assert get(f"{platform.url}/web")[0] == 200
    assert [each["pid"] for each in platform.instances("web")] == [instance["pid"]]
