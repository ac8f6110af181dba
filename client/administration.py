"""What administrators see and change: finds users by their names, and formats what the server answers."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from client.errors import ClientError
from client.server import Server

#: Rows in one response.
_PAGE: Final = 500
_UNITS: Final = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", re.IGNORECASE)
#: What stands for no limit, and for the quota of the installation.
UNLIMITED: Final = "unlimited"
DEFAULT: Final = "default"


def pages(server: Server, path: str, name: str, limit: int, query: Mapping[str, str | None]) -> list[Any]:
    """Returns the first rows of a list, at most ``limit``.

    Args:
        server: the server, with the token or key of an administrator.
        path: of the list.
        name: of the rows in the response.
        limit: how many at most.
        query: parameters; those that are None are left out.
    """
    found: list[Any] = []
    for row in _rows(server, path, name, min(limit, _PAGE), query):
        if len(found) == limit:
            break
        found.append(row)
    return found


def find(server: Server, username: str) -> Any:
    """Returns the user with exactly this name, in upper or lower case.

    Raises:
        ClientError: there is none.
    """
    wanted = username.strip().casefold()
    for user in _rows(server, "/admin/users", "users", _PAGE, {"search": wanted}):
        if user["username"] == wanted:
            return user
    raise ClientError(f"There is no user {username}: mp3burst admin users lists them.")


def path_of(user: Mapping[str, str]) -> str:
    """Returns the path of a user.

    Raises:
        ClientError: the server has answered something else than an id.
    """
    if not re.fullmatch("[0-9a-f]{32}", str(user["id"])):
        raise ClientError("The server has answered something that is no user: check the address.")
    return f"/admin/users/{user['id']}"


def quota(user: Mapping[str, Any], size: str | None, jobs: str | None) -> dict[str, int | None]:
    """Returns the quota to set: what is None stays as it is.

    Raises:
        ClientError: a text is neither a number nor one of the words.
    """
    own: dict[str, int | None] = {"bytes": user["quota"]["bytes"], "jobs": user["quota"]["jobs"]}
    if size is not None:
        own["bytes"] = _limit(size, size_in_bytes)
    if jobs is not None:
        own["jobs"] = _limit(jobs, _number)
    return own


def size_in_bytes(text: str) -> int:
    """Returns the bytes that a text such as ``50GB`` or ``1.5 TB`` means, with units of 1000.

    Raises:
        ClientError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ClientError(f"{text} is no size: write it as 50GB, or use {UNLIMITED} or {DEFAULT}.")
    unit = next(unit for unit in _UNITS if unit[:1].lower() == found[2].lower())
    return round(float(found[1]) * _UNITS[unit])


def size_text(size: int | None) -> str:
    """Returns a size in the largest unit of which it has one, such as ``1.5 GB``; a dash for None."""
    if size is None:
        return "-"
    unit = [unit for unit, factor in _UNITS.items() if unit == "" or size >= factor][-1]
    return f"{size / _UNITS[unit]:.1f} {unit}" if unit else f"{size} B"


def user_line(user: Mapping[str, Any]) -> str:
    """Returns a user as one line of a list."""
    marks = [user["role"]] + ["locked"] * (user["locked"] is not None) + ["unconfirmed"] * (not user["confirmed"])
    limit = size_text(user["bytes_limit"])
    used = f"{size_text(user['bytes'])} of {limit}" if user["bytes_limit"] is not None else size_text(user["bytes"])
    return f"{user['username']:<32}  {','.join(marks):<18}  {user['created'][:10]}  {used:<22}  {user['email']}"


def job_line(job: Mapping[str, Any]) -> str:
    """Returns a job as one line of a list."""
    state = "deferred" if job["deferred"] else job["state"]
    who = job["username"] or "(deleted)"
    line = f"{job['job']}  {job['created'][:16]}  {state:<10}  {size_text(job['video_bytes']):>9}  {who}"
    return line + (f": {job['error']}" if job["error"] else "")


def queue_lines(found: Mapping[str, Any]) -> list[str]:
    """Returns what waits as a table."""
    names = ("working", "waiting", "deferred", "retrying", "overdue")
    lines = [f"{'queue':<8}" + "".join(f"{name:>10}" for name in names) + "  oldest"]
    for queue in found["queues"]:
        counts = "".join(f"{queue[name]:>10}" for name in names)
        lines.append(f"{queue['queue']:<8}{counts}  {(queue['oldest'] or '-')[:16]}")
    given_up = found["given_up"]
    counts = f"{given_up['jobs']} jobs, {given_up['mails']} mails, {given_up['deliveries']} deliveries"
    return [*lines, f"given up in 7 days: {counts}"]


def storage_lines(found: Mapping[str, Any]) -> list[str]:
    """Returns the space of the disks, what is stored, and whose it is."""
    stores = [
        f"{store['store']:<8}{store['blobs']:>10}  {size_text(store['bytes']):>10}  {store['expired']} expired"
        for store in found["stores"]
    ]
    return [
        *(_disk_line(disk) for disk in found.get("disks", [])),
        *stores,
        *(f"{size_text(user['bytes']):>20}  {user['username'] or '(deleted)'}" for user in found["largest"]),
    ]


def _disk_line(disk: Mapping[str, Any]) -> str:
    if disk["silent_since"] is not None:
        text = f"no answer since {disk['silent_since'][:16]}"
    elif disk["total"] is None:
        text = f"{size_text(disk['used'])} used"
    else:
        text = f"{size_text(disk['free'])} free of {size_text(disk['total'])}"
    warning = {"low": ", nearly full", "full": f", full: uploads need {size_text(disk['floor'])}"}.get(
        disk["level"], ""
    )
    return f"disk of {', '.join(disk['stores'])}: {text}{warning}"


def _rows(server: Server, path: str, name: str, size: int, query: Mapping[str, str | None]) -> Iterator[Any]:
    after: str | None = None
    while True:
        given = {**query, "limit": str(size), "after": after}
        parameters = urlencode({key: value for key, value in given.items() if value is not None})
        page = server.json("GET", f"{path}?{parameters}")
        yield from page[name]
        after = page["next"]
        if after is None:
            return


def _limit(text: str, parse: Callable[[str], int]) -> int | None:
    if text in (UNLIMITED, DEFAULT):
        return 0 if text == UNLIMITED else None
    number = parse(text)
    if number == 0:
        raise ClientError(f"0 stands for no limit: use {UNLIMITED}, or at least 1.")
    return number


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ClientError(f"{text} is no number: use one, {UNLIMITED} or {DEFAULT}.")
    return int(text)
