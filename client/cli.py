"""The command ``mp3burst``: its subcommands, their options, and how they end."""

import dataclasses
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import click
from click.shell_completion import get_completion_class

from client.credentials import Credentials
from client.errors import ClientError
from events.errors import Mp3burstError
from functions.options import HELP, Options, parse_time
from functions.presets import BUILT_IN, PRESET, merge

if TYPE_CHECKING:
    from client.display import Display
    from client.download import Downloads
    from client.server import Server

F = TypeVar("F", bound=Callable[..., Any])

#: What the key of a login may be used for; it cannot change the account.
_SCOPES: Final = ("upload", "read", "delete")
_INTERRUPTED: Final = 130
_EPILOG: Final = (
    "Exit status: 0 everything is done, 1 something failed, 2 wrong usage, 3 not logged in, 4 the server cannot be "
    "reached, 130 interrupted."
)


class _Commands(click.Group):
    """A group whose commands end with one sentence, and a status, if they fail."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Mp3burstError as error:
            self._end(ctx, str(error), getattr(error, "exit_status", 1))
        except OSError as error:  # of a directory that is gone, a full disk
            if error.errno == errno.EPIPE:  # click ends the command without a word
                raise
            self._end(ctx, _problem(error), ClientError.exit_status)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)
        except click.Abort as error:  # of a prompt; also of the end of the input
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            click.echo(err=True)
            ctx.exit(_INTERRUPTED)

    @staticmethod
    def _end(ctx: click.Context, message: str, status: int) -> None:
        from client.display import printable

        click.echo(f"mp3burst: {printable(message)}", err=True)
        ctx.exit(status)


def _problem(error: OSError) -> str:
    """Returns what the system says, with the file that it concerns, and what to do."""
    file = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    action = "free space and try again" if is_full else "check that it exists and that you may use it"
    return f"{file}{error.strerror or error}: {action}."


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mp3burst")
def mp3burst() -> None:
    """Turns videos into MP3s on a server of mp3burst.

    Begin with "mp3burst login", then "mp3burst convert VIDEO".
    """


_json = click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
_directory = click.option(
    "-o",
    "--output",
    "directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    help="Directory of the MP3s.",
)


_limit = click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="So many at most.")
_usernames = click.argument("usernames", nargs=-1, required=True)


def _conversion_options(command: F) -> F:
    for name, field in reversed(Options.__dataclass_fields__.items()):
        flag = f"--{name.replace('_', '-')}"
        text = f"{HELP[name][0].upper()}{HELP[name][1:]}."
        if field.default is False:
            command = click.option(f"{flag}/--no-{name}", name, default=None, help=text)(command)
        else:
            command = click.option(flag, name, metavar=name.upper(), help=text)(command)
    help_text = "Options of this preset, which mp3burst presets lists."
    return click.option("--preset", metavar="NAME", help=help_text)(command)


def _form(given: dict[str, str | bool | None]) -> dict[str, str]:
    """Returns the options that were given, and the preset, as texts.

    Raises:
        BadOption: a value is invalid.
    """
    form = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in given.items()
        if value is not None
    }
    Options.from_form({name: value for name, value in form.items() if name != PRESET})
    return form


def _expanded(form: dict[str, str], server: "Server | None") -> dict[str, str]:
    """Returns options with those of their preset, which the client has to know: they say what may be left out.

    Args:
        form: the options that were given, and the preset.
        server: which has the preset; None if there are only the built-in ones.

    Raises:
        ClientError: there is no such preset.
        BadOption: the options are invalid together.
    """
    given = {name: value for name, value in form.items() if name != PRESET}
    name = form.get(PRESET)
    if not name:
        return given
    if server is not None:
        options = server.json("GET", f"/presets/{quote(name, safe='')}")["options"]
    elif name in BUILT_IN:
        options = BUILT_IN[name]
    else:
        raise ClientError(f"There is no built-in preset {name}: use {', '.join(BUILT_IN)}.")
    merged = merge(options, given)
    Options.from_form(merged)
    return merged


@mp3burst.command()
@click.argument("url", required=False)
@click.option("--username", help="Your username; asked for if left out.")
@click.option("--key", "has_key", is_flag=True, help="Ask for an API key in place of a password.")
def login(url: str | None, username: str | None, has_key: bool) -> None:
    """Logs in to the server at URL.

    The password is not kept: the command creates an API key of its own, and keeps that in the system's keyring or in a
    file that only you can read. With --key it keeps a key that you have. Without a terminal, the password or the key is
    the first line of the standard input.
    """
    from client.server import Server, bearer

    credentials = Credentials(os.environ)
    url = (url or credentials.url).rstrip("/")
    _warn_of_plain_text(url)
    if has_key:
        key = _secret("API key")
        Server(url, bearer(key)).json("POST", "/validate")
    else:
        new = {"name": f"mp3burst on {socket.gethostname()}"[:60], "scopes": _SCOPES}
        key = _with_password(url, username).json("POST", "/keys", new)["key"]
    place = credentials.store(url, key)
    click.echo(f"Logged in to {url}. The key is in {place}.", err=True)


def _with_password(url: str, username: str | None) -> "Server":
    """Returns the server with a token of the user, whose password is asked for."""
    from client.server import Server, basic, bearer

    name = username or click.prompt("Username", err=True)
    token = Server(url, basic(name, _secret("Password"))).json("POST", "/login")["token"]
    return Server(url, bearer(token))


def _secret(what: str) -> str:
    if sys.stdin.isatty():
        entered: str = click.prompt(what, hide_input=True, err=True)
        return entered
    return sys.stdin.readline().rstrip("\r\n")


def _warn_of_plain_text(url: str) -> None:
    host = url.removeprefix("http://").partition("/")[0].rpartition(":")[0] or url.removeprefix("http://")
    if url.startswith("http://") and host not in ("localhost", "127.0.0.1", "[::1]"):
        click.echo(f"Warning: {url} is not encrypted; use https:// if the server has it.", err=True)


@mp3burst.command()
def logout() -> None:
    """Deletes the key from this machine.

    To delete it on the server too, use "mp3burst keys rm".
    """
    credentials = Credentials(os.environ)
    credentials.forget()
    click.echo(f"The key for {credentials.url} is deleted from this machine.", err=True)


class _FileOrAddress(click.Path):
    """A file that can be read, or an address, as text, from which the server is to fetch one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower().startswith(("https://", "http://")):
            return value
        return super().convert(value, param, ctx)


_file_or_address = _FileOrAddress(exists=True, dir_okay=False, readable=True, path_type=Path)


@mp3burst.command()
@click.argument("files", nargs=-1, required=True, type=_file_or_address)
@_directory
@click.option("--wait/--no-wait", default=True, help="Wait for the MP3s and download them (the default).")
@click.option("--overwrite", is_flag=True, help="Replace MP3s that exist.")
@click.option("--whole", is_flag=True, help="Upload the pictures of a video, too; its MP3 is the same.")
@click.option("--local", is_flag=True, help="Convert on this machine, without a server.")
@_json
@_conversion_options
def convert(
    files: tuple[Path | str, ...],
    directory: Path | None,
    wait: bool,
    overwrite: bool,
    whole: bool,
    local: bool,
    as_json: bool,
    **options: str | bool | None,
) -> None:
    """Converts FILES to MP3s beside them, or in the directory of -o.

    In place of a file, give the address of one (https://...), which the server downloads; its MP3 goes to the current
    directory.

    Of a video in mp4, mov, Matroska or WebM only the sound is uploaded, unless its cover is to be a frame of it.

    If the command is interrupted, the same command continues where it was.
    """
    from client.convert import Converter, Outcome, describe, targets
    from client.display import Display
    from client.local import convert_all
    from client.records import Records

    form = _form(options)
    display = Display()
    statuses = set()

    def report(outcome: Outcome) -> None:
        statuses.add(outcome.status)
        if as_json:
            display.result(json.dumps(dataclasses.asdict(outcome)))

    def is_reserved(target: Path) -> bool:
        return not local and Records(os.environ, Credentials(os.environ).server().url).is_reserved(target)

    tasks, existing = targets(files, directory, is_overwriting=overwrite or not wait, is_reserved=is_reserved)
    for outcome in existing:
        display.line(describe(outcome))
        report(outcome)
    if local and any(task.url for task in tasks):
        raise ClientError("Only a server downloads from addresses: leave out --local, or download the file yourself.")
    if tasks and local:
        convert_all(tasks, _expanded(form, None), display, report, is_overwriting=overwrite)
    elif tasks:
        server = Credentials(os.environ).server()
        form = _expanded(form, server)
        records = Records(os.environ, server.url)
        converter = Converter(server, records, form, display, is_awaited=wait, is_whole=whole, is_overwriting=overwrite)
        converter.run(tasks, report)
    if "failed" in statuses:
        sys.exit(ClientError.exit_status)


@mp3burst.command()
@click.argument("watched", metavar="DIRECTORY", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_directory
@click.option("--once", is_flag=True, help="Convert what is there, and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks at the directory.",
)
@click.option("--whole", is_flag=True, help="Upload the pictures of videos, too; the MP3s are the same.")
@_conversion_options
def watch(
    watched: Path,
    directory: Path | None,
    once: bool,
    interval: float,
    whole: bool,
    **options: str | bool | None,
) -> None:
    """Converts every file that is put into DIRECTORY, until it is interrupted.

    A file is converted as soon as it no longer grows, and once: neither a restart nor a copy under another name
    converts it again. The MP3s go into the same directory, or that of -o, and never replace a file.
    """
    from client.convert import Converter
    from client.display import Display
    from client.records import Records
    from client.watch import Watch

    server = Credentials(os.environ).server()
    form = _expanded(_form(options), server)
    records = Records(os.environ, server.url)
    display = Display()
    converter = Converter(server, records, form, display, is_whole=whole)
    output = (directory or watched).absolute()
    watching = Watch(watched.absolute(), output, converter, records, display, form)
    if not once:
        watching.run(interval)
    elif not watching.run_once(interval):
        sys.exit(ClientError.exit_status)


@mp3burst.group(invoke_without_command=True)
@_json
@click.pass_context
def presets(context: click.Context, as_json: bool) -> None:
    """Lists presets, options under one name for convert and watch; or saves and deletes yours."""
    from client.display import printable

    if context.invoked_subcommand is not None:
        return
    found = Credentials(os.environ).server().json("GET", "/presets")["presets"]
    if as_json:
        click.echo(json.dumps(found))
        return
    for preset in found:
        flags = " ".join(f"{name}={value}" for name, value in preset["options"].items())
        click.echo(printable(f"{preset['name']:<16}  {preset['origin']:<6}  {flags}"))


@presets.command("save")
@click.argument("name")
@_conversion_options
def save_preset(name: str, **options: str | bool | None) -> None:
    """Saves options as your preset NAME, in place of the one of this name."""
    server = Credentials(os.environ).server()
    form = _expanded(_form(options), server)
    server.json("PUT", f"/presets/{quote(name, safe='')}", {"options": form})


@presets.command("rm")
@click.argument("name")
def delete_preset(name: str) -> None:
    """Deletes your preset NAME."""
    Credentials(os.environ).server().request("DELETE", f"/presets/{quote(name, safe='')}")


@mp3burst.command()
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True, help="The newest so many.")
@_json
def jobs(limit: int, as_json: bool) -> None:
    """Lists your jobs, newest first."""
    from client.display import printable

    found = Credentials(os.environ).server().json("GET", f"/jobs?limit={limit}")["jobs"]
    if as_json:
        click.echo(json.dumps(found))
        return
    for job in found:
        state = job["stage"] if job["status"] != "converting" else f"{job['stage']} {job['progress']:.0%}"
        line = f"{job['job']}  {job['created'][:16]}  {state:<13}  {job['filename']}"
        click.echo(printable(line + (f": {job['error']}" if job["error"] else "")))


@mp3burst.command()
@click.argument("ids", metavar="JOBS", nargs=-1, required=True)
@_directory
@click.option("--overwrite", is_flag=True, help="Replace MP3s that exist.")
def download(ids: tuple[str, ...], directory: Path | None, overwrite: bool) -> None:
    """Downloads the MP3s of JOBS, which are ids from "mp3burst jobs"."""
    from client.display import Display

    display = Display()
    downloads = _downloads(directory, overwrite, display)
    with display.shown():
        _each(tuple(dict.fromkeys(ids)), lambda job: downloads.download(_job(job)))


def _downloads(directory: Path | None, is_overwriting: bool, display: "Display") -> "Downloads":
    from client.download import Downloads
    from client.records import Records

    server = Credentials(os.environ).server()
    records = Records(os.environ, server.url)
    return Downloads(server, records, directory or Path(), display, is_overwriting=is_overwriting)


@mp3burst.command()
@click.argument("id_", metavar="JOB")
@click.option("--at", "times", metavar="TIME", multiple=True, help="Cut at this time: 83.5 or 1:23.5; can be repeated.")
@click.option(
    "--silence",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    help="Cut in the middle of each silence of at least so many seconds.",
)
@click.option(
    "--below",
    metavar="DECIBELS",
    type=click.FloatRange(-120, 0),
    default=-50.0,
    show_default=True,
    help="What counts as silence, relative to full scale.",
)
@click.option("--title", "titles", multiple=True, help="Title of a part, once for each part in order.")
@_directory
@click.option("--download/--no-download", default=True, help="Download the parts (the default).")
@click.option("--overwrite", is_flag=True, help="Replace MP3s that exist.")
@_json
def split(id_: str, directory: Path | None, download: bool, overwrite: bool, as_json: bool, **where: Any) -> None:
    """Splits the MP3 of JOB into parts, and downloads them.

    It is cut where its chapters begin, at the times of --at, or in its silences, without encoding it again. Each part
    is a job of its own on the server; splitting at the same places again makes no further parts. For --silence the
    command downloads the MP3 and decodes it with the ffmpeg of this machine.
    """
    from client.display import Display

    server = Credentials(os.environ).server()
    wanted: dict[str, Any] = {"at": _places(server, _job(id_), **where)}
    if where["titles"]:
        wanted["titles"] = where["titles"]
    parts = {part["job"]: part for part in server.json("POST", f"/jobs/{id_}/split", wanted)["parts"]}
    display = Display()
    downloads = _downloads(directory, overwrite, display) if download else None

    def finish(job: str) -> None:
        file = downloads and downloads.download(job)
        if as_json:
            display.result(json.dumps({**parts[job], "mp3": file and str(file)}))
        elif file is None:
            display.line(f"{parts[job]['filename']} is job {job}")

    with display.shown():
        _each(tuple(parts), finish)


def _places(
    server: "Server", job: str, times: tuple[str, ...], silence: float | None, below: float, **_: object
) -> list[float] | str:
    """Returns where to split the MP3 of a job, as the server takes it.

    Raises:
        ClientError: the MP3 has no silence between two sounds, or there are times, too.
    """
    if silence is None:
        return [parse_time("--at", time) for time in times] or "chapters"
    if times:
        raise ClientError("--at and --silence exclude each other: use only one of them.")
    from client.download import download as fetch
    from client.silence import cuts

    mp3 = server.json("GET", f"/jobs/{job}")["mp3"]
    if mp3 is None:
        raise ClientError("This job has no MP3 yet: mp3burst jobs shows how far it is.")
    with TemporaryDirectory(prefix="mp3burst-") as folder:
        whole = Path(folder, "whole.mp3")
        fetch(server, mp3, whole, lambda _done, _total: None)
        found = cuts(whole, silence, below)
    if not found:
        raise ClientError(
            f"No silence of {silence:g} seconds is below {below:g} dB: choose fewer seconds, or a higher --below."
        )
    return found


@mp3burst.command()
@click.argument("ids", metavar="JOBS", nargs=-1, required=True)
def rm(ids: tuple[str, ...]) -> None:
    """Deletes JOBS, with their videos and MP3s on the server."""
    server = Credentials(os.environ).server()
    _each(ids, lambda job: server.request("DELETE", f"/jobs/{_job(job)}"))


def _job(id_: str) -> str:
    """Returns the id of a job, which becomes part of a path."""
    if not (id_.isascii() and id_.isalnum()):
        raise ClientError("This is not the id of a job: mp3burst jobs lists them.")
    return id_


def _each(ids: tuple[str, ...], action: Callable[[str], object]) -> None:
    """Does something with each job; goes on after a job that fails, and exits with 1 at the end."""
    from client.display import printable

    has_failed = False
    for id_ in ids:
        try:
            action(id_)
        except ClientError as error:
            if error.exit_status != ClientError.exit_status:
                raise
            has_failed = True
            click.echo(printable(f"{id_}: {error}"), err=True)
    if has_failed:
        sys.exit(ClientError.exit_status)


@mp3burst.group()
@click.option("--username", help="Your username; asked for if left out.")
@click.pass_context
def keys(context: click.Context, username: str | None) -> None:
    """Lists, creates and deletes API keys.

    Asks for your password: a key cannot change the account.
    """
    context.obj = username


def _account(username: str | None) -> "Server":
    """Returns the current server with a token, which may change the account."""
    return _with_password(Credentials(os.environ).url, username)


@keys.command("list")
@_json
@click.pass_obj
def list_keys(username: str | None, as_json: bool) -> None:
    """Lists your API keys, newest first."""
    from client.display import printable

    found = _account(username).json("GET", "/keys")["keys"]
    if as_json:
        click.echo(json.dumps(found))
        return
    for key in found:
        used = key["last_used"] or "never used"
        click.echo(printable(f"{key['id']}  {used:<10}  {','.join(key['scopes']):<26}  {key['name']}"))


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([*_SCOPES, "account", "admin", "metrics"]),
    default=_SCOPES,
    show_default=True,
    help="What it may be used for; can be repeated.",
)
@click.pass_obj
def create_key(username: str | None, name: str, scopes: tuple[str, ...]) -> None:
    """Creates an API key and prints it."""
    from client.display import printable

    click.echo(printable(_account(username).json("POST", "/keys", {"name": name, "scopes": scopes})["key"]))


@keys.command("rm")
@click.argument("ids", metavar="KEYS", nargs=-1, required=True)
@click.pass_obj
def delete_keys(username: str | None, ids: tuple[str, ...]) -> None:
    """Deletes KEYS, which are ids from "mp3burst keys list"."""
    server = _account(username)
    _each(ids, lambda key: server.request("DELETE", f"/keys/{_job(key)}"))


@mp3burst.group()
@click.option("--username", help="Your username; asked for if left out.")
@click.option(
    "--key", "has_key", is_flag=True, help="Use the key of the login, or MP3BURST_KEY; it needs the scope admin."
)
@click.pass_context
def admin(context: click.Context, username: str | None, has_key: bool) -> None:
    """Manages users, and shows what goes on; for administrators.

    Asks for your password, unless you use a key with the scope admin.
    """
    context.obj = lambda: Credentials(os.environ).server() if has_key else _account(username)


@admin.command("users")
@click.argument("search", default="")
@click.option("--role", type=click.Choice(["user", "admin"]), help="Only users with this role.")
@click.option("--locked", is_flag=True, help="Only users who are locked.")
@_limit
@_json
@click.pass_obj
def list_users(
    connect: Callable[[], "Server"], search: str, role: str | None, locked: bool, limit: int, as_json: bool
) -> None:
    """Lists users by their names: all, or those whose username, name or address contains SEARCH."""
    from client.administration import pages, user_line

    query = {"search": search, "role": role, "locked": "true" if locked else None}
    found = pages(connect(), "/admin/users", "users", limit, query)
    _print(found, lambda: map(user_line, found), as_json)


@admin.command("role")
@click.argument("username")
@click.argument("role", type=click.Choice(["user", "admin"]))
@click.pass_obj
def set_role(connect: Callable[[], "Server"], username: str, role: str) -> None:
    """Makes USERNAME an administrator, or an ordinary user again."""
    _change(connect(), [username], {"role": role})


@admin.command("quota")
@click.argument("username")
@click.option("--bytes", "size", metavar="SIZE", help="Of videos and MP3s: 50GB, unlimited, or default.")
@click.option("--jobs", "jobs_", metavar="NUMBER", help="In progress at once: a number, unlimited, or default.")
@click.pass_obj
def set_quota(connect: Callable[[], "Server"], username: str, size: str | None, jobs_: str | None) -> None:
    """Shows the quota of USERNAME, or sets it.

    "default" is the quota of everybody.
    """
    from client.administration import find, path_of, quota, user_line
    from client.display import printable

    server = connect()
    user = find(server, username)
    if size is not None or jobs_ is not None:
        user = server.json("PUT", f"{path_of(user)}/quota", quota(user, size, jobs_))
    limit = "unlimited" if user["jobs_limit"] is None else user["jobs_limit"]
    click.echo(printable(f"{user_line(user)}  {user['jobs']} of {limit} jobs"))


@admin.command("lock")
@_usernames
@click.pass_obj
def lock(connect: Callable[[], "Server"], usernames: tuple[str, ...]) -> None:
    """Keeps USERNAMES out: no login, token, key, feed or shared link works."""
    _change(connect(), usernames, {"locked": True})


@admin.command("unlock")
@_usernames
@click.pass_obj
def unlock(connect: Callable[[], "Server"], usernames: tuple[str, ...]) -> None:
    """Lets USERNAMES in again."""
    _change(connect(), usernames, {"locked": False})


@admin.command("logout")
@_usernames
@click.pass_obj
def end_sessions(connect: Callable[[], "Server"], usernames: tuple[str, ...]) -> None:
    """Logs USERNAMES out everywhere; their API keys stay."""
    from client.administration import find, path_of

    server = connect()
    _each(usernames, lambda name: server.request("DELETE", f"{path_of(find(server, name))}/sessions"))


@admin.command("rm")
@_usernames
@click.confirmation_option(prompt="Delete these users with everything they have?")
@click.pass_obj
def delete_users(connect: Callable[[], "Server"], usernames: tuple[str, ...]) -> None:
    """Deletes USERNAMES, with their jobs, videos and MP3s."""
    from client.administration import find, path_of

    server = connect()
    _each(usernames, lambda name: server.request("DELETE", path_of(find(server, name))))


@admin.command("jobs")
@click.option("--user", "username", help="Only jobs of this user.")
@click.option("--state", help="Only jobs in this state, such as failed.")
@_limit
@_json
@click.pass_obj
def list_all_jobs(
    connect: Callable[[], "Server"], username: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """Lists the jobs of all users with their errors, newest first."""
    from client.administration import find, job_line, pages

    server = connect()
    owner = find(server, username)["id"] if username else None
    found = pages(server, "/admin/jobs", "jobs", limit, {"user": owner, "state": state})
    _print(found, lambda: map(job_line, found), as_json)


@admin.command("queues")
@_json
@click.pass_obj
def list_queues(connect: Callable[[], "Server"], as_json: bool) -> None:
    """Shows what waits for a worker, and what was given up."""
    from client.administration import queue_lines

    found = connect().json("GET", "/admin/queues")
    _print(found, lambda: queue_lines(found), as_json)


@admin.command("retry")
@click.argument("queue", type=click.Choice(["fetch", "convert", "encode", "join", "notify", "hook"]))
@click.pass_obj
def retry(connect: Callable[[], "Server"], queue: str) -> None:
    """Has what waits in QUEUE for another attempt tried at once: within 5 minutes."""
    rows = connect().json("POST", f"/admin/queues/{queue}/retry")["rows"]
    click.echo(f"{rows} due now")


@admin.command("storage")
@_json
@click.pass_obj
def show_storage(connect: Callable[[], "Server"], as_json: bool) -> None:
    """Shows the free space of the disks, what is stored, and who has stored most."""
    from client.administration import storage_lines

    found = connect().json("GET", "/admin/storage")
    _print(found, lambda: storage_lines(found), as_json)


def _change(server: "Server", usernames: Iterable[str], wanted: Mapping[str, object]) -> None:
    from client.administration import find, path_of

    _each(tuple(usernames), lambda name: server.json("PATCH", path_of(find(server, name)), wanted))


def _print(found: object, lines: Callable[[], Iterable[str]], as_json: bool) -> None:
    """Prints what the server has answered, as JSON or as lines."""
    from client.display import printable
    from client.errors import not_mp3burst

    if as_json:
        click.echo(json.dumps(found))
        return
    try:
        printed = list(lines())
    except (TypeError, ValueError, AttributeError) as error:  # a text in place of a number
        raise not_mp3burst(Credentials(os.environ).url) from error
    for line in printed:
        click.echo(printable(line))


@mp3burst.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints a script that completes commands and options in SHELL.

    For bash: mp3burst completion bash > ~/.local/share/bash-completion/completions/mp3burst
    """
    found = get_completion_class(shell)
    if found is None:  # pragma: no cover - the choices above are those that click has
        raise ClientError(f"{shell} is not supported: choose bash, zsh or fish.")
    click.echo(found(mp3burst, {}, "mp3burst", "_MP3BURST_COMPLETE").source())
