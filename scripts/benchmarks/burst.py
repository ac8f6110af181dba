"""burst, fanout, idle: a hundred clips on the embedded platform, an hour shared out, and what is there at rest."""

import contextlib
import functools
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.benchmarks import clock
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.clock import CannotMeasure, Took
from scripts.benchmarks.report import Row, at_least, at_most
from scripts.benchmarks.serving import ask, upload
from scripts.benchmarks.tool import plain

_CLIENTS = 10
_PASSWORD = "correct horse battery"  # noqa: S105 - of an account that lives for a minute


def burst(bench: Bench) -> Iterator[Row]:
    """From the first upload's first byte to the last MP3, against the CPU that ffmpeg needs for the same clips."""
    from tests.support.platform import start

    clip, many = bench.inputs.video(20), 10 if bench.quick else 100
    folder = bench.folder()
    reference = [plain(clip, folder / "plain.mp3") for _ in range(many // 2)]
    with start(folder / "data") as platform:
        bearer = _user(platform.port)
        begin = time.perf_counter()
        with ThreadPoolExecutor(_CLIENTS) as pool:
            jobs = list(pool.map(lambda _: upload(platform.port, bearer, clip)["job"], range(many)))
        accepted = time.perf_counter() - begin
        states = _await(platform.port, bearer, many)
        seconds = time.perf_counter() - begin
        mails = len(list((folder / "data" / "mail").glob("*.eml")))
    reference += [plain(clip, folder / "plain.mp3") for _ in range(many - len(reference))]
    lame, sequential = sum(one.cpu for one in reference), sum(one.seconds for one in reference)
    ideal = lame / clock.cores()
    lost = len(set(jobs)) - states.get("done", 0)
    yield Row(
        "burst",
        f"{many} clips of 20 s: ideal by wall",
        ideal / seconds,
        "x",
        f"ffmpeg's CPU for them / cores, {ideal:.1f} s",
        **(at_least(ideal / seconds, 0.85) if not lost else {"goal": "none lost", "met": False}),
        details={
            "seconds": {"all done": seconds, "all accepted": accepted, "ffmpeg one by one": sequential},
            "against ffmpeg one by one": seconds / sequential,
            "jobs": states,
            "lost": lost,
            "mails": mails,
        },
    )


def fanout(bench: Bench) -> Iterator[Row]:
    """An hour of sound shared out on the embedded platform, against one container that does it all."""
    from tests.support.platform import start

    sound = bench.inputs.repeated(bench.inputs.sound(60 if bench.quick else 600), 1 if bench.quick else 6)
    length, folder = "1 min" if bench.quick else "1 h", bench.folder()
    least = {"shared": "30" if bench.quick else "900", "alone": "1000000"}
    with contextlib.ExitStack() as stack:
        platforms = {
            name: stack.enter_context(start(folder / name, env={"FANOUT_SECONDS": seconds}))
            for name, seconds in least.items()
        }
        users = {name: _user(platform.port) for name, platform in platforms.items()}
        done = dict.fromkeys(least, 0)

        def convert(name: str) -> Took:
            begin = time.perf_counter()
            upload(platforms[name].port, users[name], sound)
            done[name] += 1
            if _await(platforms[name].port, users[name], done[name]).get("done", 0) != done[name]:
                raise CannotMeasure("A job failed.")
            return Took(time.perf_counter() - begin)

        takes = {name: functools.partial(convert, name) for name in least}
        took = clock.in_turn(takes, max(bench.rounds // 2, 1))
    value, alone = clock.ratio(took["shared"], took["alone"]), clock.median(took["alone"]).seconds
    yield Row(
        "fanout",
        f"{length} of AAC, shared out",
        value,
        "x",
        f"one container, {clock.cores()} encoders, {alone:.1f} s",
        **at_most(value, 1.15),
        details={
            "seconds": {name: clock.median(some).seconds for name, some in took.items()},
            "rounds": [one.seconds / other.seconds for one, other in zip(took["shared"], took["alone"], strict=True)],
        },
    )


def idle(bench: Bench) -> Iterator[Row]:
    """After one conversion and the idle windows, here cut to 2 s: processes and proportional memory."""
    from tests.support.platform import start
    from tests.support.processes import descendants, wait_for

    folder = bench.folder()
    with start(folder / "data", idle=2) as platform:
        bearer = _user(platform.port)
        upload(platform.port, bearer, bench.inputs.video(2))
        _await(platform.port, bearer, 1)
        busy = descendants(platform.process.pid)
        wait_for(lambda: not descendants(platform.process.pid), "no function's process", 60)
        pids = [platform.process.pid, *descendants(platform.process.pid)]
        memory = {_name(pid): _pss(pid) for pid in pids}
    yield Row(
        "idle",
        "processes of functions",
        len(pids) - 1,
        "",
        f"just after work {len(busy)}",
        "0",
        len(pids) == 1,
        {"what stays, MB": memory},
    )


def _user(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    form = {"name": "Bench", "username": "bench@example.org", "password": _PASSWORD}
    ask(connection, "POST", "/register", {}, json.dumps(form).encode())
    from scripts.benchmarks.login import basic

    bearer: str = ask(connection, "POST", "/login", basic())["token"]
    connection.close()
    return bearer


def _await(port: int, bearer: str, many: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        listed, after = list[str](), ""
        while True:
            page = ask(connection, "GET", f"/jobs?limit=100{after}", {"Authorization": f"Bearer {bearer}"})
            listed += [job["status"] for job in page["jobs"]]
            if not page["next"] or not page["jobs"]:
                break
            after = f"&after={page['next']}"
        states = {state: listed.count(state) for state in set(listed)}
        if states.get("done", 0) + states.get("failed", 0) >= many:
            connection.close()
            return states
        time.sleep(0.1)
    raise CannotMeasure("The burst was not done in a quarter of an hour.")


def _pss(pid: int) -> float:
    """Megabytes, shared pages counted in part (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return " ".join([Path(words[0]).name, *words[1:3]])
