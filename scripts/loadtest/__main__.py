"""Sends a burst of videos as a user would, records what it uses, and charts the result."""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from events.errors import Mp3burstError
from scripts.benchmarks import report
from scripts.benchmarks.inputs import Inputs
from scripts.loadtest import charts
from scripts.loadtest.accounting import sentences, table, usage_of
from scripts.loadtest.embedded import Embedded
from scripts.loadtest.knative import CannotWatch, Knative, WithServers
from scripts.loadtest.recording import BadRecording, Platform, Recording
from scripts.loadtest.users import Api, Burst, Refused
from scripts.loadtest.watch import Observer, TooSlow, record, record_idle
from tests.support.platform import start


class BadVideo(Mp3burstError):
    """The video does not exist."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if a job was lost or nothing could be measured, whatever the figures are."""
    args = _parser().parse_args(arguments)
    out = args.origin / (args.out or "burst")
    try:
        if args.draw:
            recording = Recording.read(args.origin / args.draw)
            out = args.origin / (args.out or args.draw.with_suffix(""))
        else:
            recording = _record(args)
            recording.write(_with_suffix(out, ".json"))
    except (BadRecording, BadVideo, CannotWatch, Refused, TooSlow, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    usage = usage_of(recording)
    print("\n".join(["", table(usage), "", *sentences(recording, usage)]))
    png = _with_suffix(out, ".png")
    page = _with_suffix(out, ".html")
    charts.write(recording, png, page)
    print(f"Charts: {png} and {page}")
    jobs = recording.samples[-1].jobs
    return 0 if jobs.get("done", 0) == sum(jobs.values()) and not recording.refused else 1


def _record(args: argparse.Namespace) -> Recording:
    with ExitStack() as stack:
        if args.watch:
            platform, _ = _platform(args, stack)
            recording = Recording(platform.name, f"{args.watch / 60:g} idle minutes", report.machine())
            record_idle(recording, Observer(platform, args.every, args.tail, _progress()), args.watch)
            return recording
        return _record_burst(args, stack)


def _record_burst(args: argparse.Namespace, stack: ExitStack) -> Recording:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    inputs = Inputs(args.cache or home / "mp3burst" / "bench")
    video = args.origin / args.video if args.video else inputs.video(args.seconds)
    if not video.is_file():
        raise BadVideo(f"There is no file {video}: name a video, or leave out --video and one is made.")
    burst = Burst(video, args.clips, args.clients)
    what = f"{burst.count} video{'s' * (burst.count > 1)} of {args.seconds} s"
    if args.video:
        what = f"{burst.count} times {video.name}"
    platform, api = _platform(args, stack)
    recording = Recording(platform.name, what, report.machine())
    record(recording, Observer(platform, args.every, args.tail, _progress()), api, burst)
    return recording


def _platform(args: argparse.Namespace, stack: ExitStack) -> tuple[Platform, Api]:
    if args.knative:
        cluster = Knative(shlex.split(args.kubectl), args.namespace, args.rabbitmq)
        return WithServers(cluster, dict(args.beside)), Api(args.url or "http://localhost:8080", args.connect)
    if args.url:
        return Embedded(args.origin / args.data), Api(args.url, args.connect)
    data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="burst-"))) / "data"
    own = stack.enter_context(start(data, idle=args.idle, env={"QUOTA_JOBS": "0"}))
    return Embedded(own.data, own.process.pid), Api(own.url)


def _progress() -> Callable[[str], None]:
    """Returns a function that prints a line with the seconds since now."""
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {line}", flush=True)

    return say


def _with_suffix(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _server(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    return name, int(pid)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: give 1 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/burst", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=_positive, default=20, metavar="N", help="number of videos (20)")
    parser.add_argument("--seconds", type=_positive, default=20, metavar="S", help="length of each video (20)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="send your own video instead")
    parser.add_argument("--clients", type=_positive, default=8, metavar="N", help="uploads at once (8)")
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="time between snapshots (0.5)")
    parser.add_argument(
        "--tail", type=float, default=180.0, metavar="SECONDS", help="longest wait for the last pod to stop (180)"
    )
    parser.add_argument("--out", type=Path, metavar="PREFIX", help="write PREFIX.json, .png and .html (burst)")
    parser.add_argument("--draw", type=Path, metavar="FILE.json", help="draw a recording again; send nothing")
    parser.add_argument("--watch", type=_positive, metavar="SECONDS", help="send nothing: record so many idle seconds")
    parser.add_argument("--url", default="", help="a running platform; without it one is started for the burst")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        metavar="DIR",
        help="with --url: that platform's data directory (data)",
    )
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="its idle windows, in place of the manifests'")
    parser.add_argument("--connect", default="", metavar="HOST:PORT", help="connect there in place of the URL's host")
    parser.add_argument(
        "--knative", action="store_true", help="the platform is a Knative cluster; --url may contain {function}"
    )
    parser.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="kubectl and its options (kubectl)")
    parser.add_argument("--namespace", default="mp3burst", help="mp3burst's namespace (mp3burst)")
    parser.add_argument(
        "--rabbitmq", default="", metavar="URL", help="RabbitMQ's management API, with user and password"
    )
    parser.add_argument(
        "--beside",
        type=_server,
        action="append",
        default=[],
        metavar="NAME=PID",
        help="also count a server that runs as a process of this machine; may be repeated",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where to keep the videos, which are made once")
    parser.add_argument("--from", dest="origin", type=Path, default=Path(), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
