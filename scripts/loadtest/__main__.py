"""Sends a burst of videos as a user would, watches what it takes, and draws it: ``scripts/burst``."""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from events.errors import Mp3burstError
from scripts.benchmarks import report
from scripts.benchmarks.inputs import Inputs
from scripts.loadtest import picture
from scripts.loadtest.accounting import account, sentences, table
from scripts.loadtest.embedded import Embedded
from scripts.loadtest.knative import CannotWatch, Knative
from scripts.loadtest.processes import WithServers
from scripts.loadtest.recording import BadRecording, Recording
from scripts.loadtest.users import Api, Refused
from scripts.loadtest.watch import Platform, Say, TooSlow, record


class BadVideo(Mp3burstError):
    """There is no such video."""


def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 where a job was lost or nothing could be measured, whatever the figures are."""
    given = _parser().parse_args(arguments)
    out = given.origin / (given.out or "burst")
    try:
        if given.draw:
            recording = Recording.read(given.origin / given.draw)
            out = given.origin / (given.out or given.draw.with_suffix(""))
        else:
            recording = _record(given)
            recording.write(_beside(out, ".json"))
    except (BadRecording, BadVideo, CannotWatch, Refused, TooSlow, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    made = account(recording)
    print("\n".join(["", table(made), "", *sentences(recording, made)]))
    picture.write(recording, _beside(out, ".png"), _beside(out, ".html"))
    print(f"Drawn in {_beside(out, '.png')} and {_beside(out, '.html')}.")
    done, sent = recording.samples[-1].jobs.get("done", 0), sum(recording.samples[-1].jobs.values())
    return 0 if done == sent and not recording.refused else 1


def _record(given: argparse.Namespace) -> Recording:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    inputs = Inputs(given.cache or home / "mp3burst" / "bench")
    video = given.origin / given.video if given.video else inputs.video(given.seconds)
    if not video.is_file():
        raise BadVideo(f"There is no file {video}: name a video, or leave --video out and one is made.")
    many = given.clips
    what = f"{many} video{'s' * (many > 1)} of {given.seconds} s" if not given.video else f"{many} times {video.name}"
    with ExitStack() as stack:
        platform, api = _platform(given, stack)
        recording = Recording(platform.name, what, report.machine())
        begin = time.monotonic()
        record(recording, platform, api, video, many, given.clients, given.every, given.tail, _say(begin))
        return recording


def _platform(given: argparse.Namespace, stack: ExitStack) -> tuple[Platform, Api]:
    if given.knative:
        watched = Knative(shlex.split(given.kubectl), given.namespace, given.rabbitmq)
        return WithServers(watched, dict(given.beside)), Api(given.url or "http://localhost:8080", given.connect)
    if given.url:
        return Embedded(given.url), Api(given.url, given.connect)
    from tests.support.platform import start

    data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="burst-"))) / "data"
    own = stack.enter_context(start(data, idle=given.idle, env={"QUOTA_JOBS": "0"}))
    return Embedded(own.url, own.process.pid), Api(own.url)


def _server(text: str) -> tuple[str, int]:
    name, _, pid = text.partition("=")
    return name, int(pid)


def _say(begin: float) -> Say:
    def say(sentence: str) -> None:
        print(f"{time.monotonic() - begin:7.1f} s  {sentence}", flush=True)

    return say


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def _some(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is too few: give 1 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/burst", description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=_some, default=20, metavar="N", help="how many videos (20)")
    parser.add_argument("--seconds", type=_some, default=20, metavar="S", help="of each (20)")
    parser.add_argument("--video", type=Path, metavar="FILE", help="a video of your own in their place")
    parser.add_argument("--clients", type=_some, default=8, metavar="N", help="how many upload at once (8)")
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="between two looks (0.5)")
    parser.add_argument(
        "--tail", type=float, default=180.0, metavar="SECONDS", help="wait for the last pod to stop, at most (180)"
    )
    parser.add_argument("--out", type=Path, metavar="PREFIX", help="writes PREFIX.json, .png and .html (burst)")
    parser.add_argument("--draw", type=Path, metavar="FILE.json", help="send nothing: draw a recording again")
    parser.add_argument("--url", default="", help="a platform that runs; without it one is started for the burst")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="its idle windows, in place of the manifests'")
    parser.add_argument("--connect", default="", metavar="HOST:PORT", help="where the URL's host is to be found")
    parser.add_argument(
        "--knative", action="store_true", help="the platform is a cluster; in --url {function} may stand"
    )
    parser.add_argument("--kubectl", default="kubectl", metavar="COMMAND", help="with whatever chooses the cluster")
    parser.add_argument("--namespace", default="mp3burst", help="of mp3burst in the cluster")
    parser.add_argument(
        "--rabbitmq", default="", metavar="URL", help="RabbitMQ's management API, with user and password"
    )
    parser.add_argument(
        "--beside",
        type=_server,
        action="append",
        default=[],
        metavar="NAME=PID",
        help="a store that is a process of this machine and no pod, to be counted as well; for each",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the videos are kept that are made once")
    parser.add_argument("--from", dest="origin", type=Path, default=Path(), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
