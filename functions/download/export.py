"""Everything of a user in one archive: ``account.json``, and the stored MP3s and videos.

What gives access, such as an API key or the address of a feed, is listed without its secret, which is not stored.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

import msgspec

from events.errors import with_cause
from functions.auth.external_logins import ExternalLogin, ExternalLogins
from functions.auth.feeds import Feeds
from functions.auth.keys import ApiKey, ApiKeys
from functions.auth.profiles import Profile, Profiles
from functions.auth.sessions import Session, Sessions
from functions.auth.shared_links import SharedLink, SharedLinks
from functions.download.streamed_zip import Entry, safe_name
from functions.http_endpoint import iso_time
from functions.media import BlobCorrupt, BlobNotFound, Media, Reader, open_mp3
from functions.mp3.names import mp3_file_name
from functions.state.database import Database
from functions.state.jobs import Job, Jobs
from functions.state.presets import Presets
from functions.state.schema import UserId
from functions.state.webhooks import Webhook, Webhooks

_CHUNK: Final = 256 << 10  # bytes
_PAGE: Final = 500  # jobs in one query
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of which an archive has a user's rows."""

    profiles: Profiles
    keys: ApiKeys
    sessions: Sessions
    logins: ExternalLogins
    links: SharedLinks
    feeds: Feeds
    webhooks: Webhooks
    presets: Presets
    jobs: Jobs

    @classmethod
    def of(cls, database: Database) -> Self:
        """Returns the tables in a database."""
        return cls(
            profiles=Profiles(database),
            keys=ApiKeys(database),
            sessions=Sessions(database),
            logins=ExternalLogins(database),
            links=SharedLinks(database),
            feeds=Feeds(database),
            webhooks=Webhooks(database),
            presets=Presets(database, {}),
            jobs=Jobs(database),
        )


def export(user: UserId, tables: Tables, media: Media) -> Iterator[Entry]:
    """Yields the files of the archive; each is looked up when it is reached, and is to be read before the next.

    The last is ``account.json``, which names those that are there.

    Raises:
        NotAuthenticated: the account was deleted.
        MediaUnavailable: the media store does not answer.
    """
    profile = tables.profiles.get(user)
    described = []
    for job in _all(tables.jobs, user):
        stored = {}
        mp3 = functools.partial(_open_mp3, media, job)
        video = functools.partial(_open_video, media, job)
        for folder, open_ in (("mp3s", mp3), ("videos", video)):
            if (reader := _opened(open_)) is None:
                continue
            with reader:
                name = mp3_file_name(job.filename) if folder == "mp3s" else reader.stat.description.filename
                stored[folder] = f"{folder}/{job.id}-{safe_name(name)}"
                yield Entry(stored[folder], date(job.created_at), _chunks(reader, 0, reader.stat.size))
        described.append(_job(job, stored))
    content = {
        "account": _account(profile),
        "keys": [_key(key) for key in tables.keys.of(user)],
        "sessions": [_session(session) for session in tables.sessions.of(user)],
        "logins": [_login(login) for login in tables.logins.of(user)],
        "links": [_link(link) for link in tables.links.of(user)],
        "feed": _feed(tables.feeds.created_at(user)),
        "webhooks": [_webhook(webhook) for webhook in tables.webhooks.of(user)],
        "presets": [{"name": preset.name, "options": preset.options} for preset in tables.presets.of(user)],
        "jobs": described,
    }
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    yield Entry("account.json", date(profile.created_at), [encoded])


def _all(jobs: Jobs, user: UserId) -> Iterator[Job]:
    last = None
    while page := jobs.older(user, _PAGE, last):
        yield from page
        last = page[-1]


def _open_mp3(media: Media, job: Job) -> Reader:
    return open_mp3(media.mp3s, job.stored)


def _open_video(media: Media, job: Job) -> Reader:
    if job.source is not None:
        raise BlobNotFound  # its source has it
    return media.videos.open(job.video)


def _opened(open_: Callable[[], Reader]) -> Reader | None:
    """Returns a file's reader; None if there is none that can be read."""
    try:
        return open_()
    except BlobNotFound:
        return None
    except BlobCorrupt as error:
        log.error("an export leaves out a file: %s", with_cause(error))
        return None


def read_chunks(open_: Callable[[], Reader], first: int, last: int) -> Iterator[bytes]:
    """Yields the bytes of a file from ``first`` to before ``last``, in chunks."""
    with open_() as reader:
        yield from _chunks(reader, first, last)


def _chunks(reader: Reader, first: int, last: int) -> Iterator[bytes]:
    reader.fetch_until(last)
    if first:
        reader.seek(first)
    while chunk := reader.read(min(_CHUNK, last - reader.tell())):
        yield chunk


def _account(profile: Profile) -> dict[str, Any]:
    fields = asdict(profile)
    times = {"created": iso_time(fields.pop("created_at")), "confirmed": iso_time(fields.pop("confirmed_at"))}
    return {name: value for name, value in fields.items() if name != "token_version"} | times


def _key(key: ApiKey) -> dict[str, Any]:
    times = {"created": iso_time(key.created_at), "expires": iso_time(key.expires_at), "used": iso_time(key.used_at)}
    return {"id": key.id, "name": key.name, "scopes": key.scopes, **times}


def _session(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "created": iso_time(session.created_at),
        "expires": iso_time(session.expires_at),
        "used": iso_time(session.used_at),
        "agent": session.agent,
        "network": session.network,
    }


def _login(login: ExternalLogin) -> dict[str, Any]:
    return {"id": login.id, "provider": login.provider, "created": iso_time(login.created_at)}


def _link(link: SharedLink) -> dict[str, Any]:
    times = {"created": iso_time(link.created_at), "expires": iso_time(link.expires_at)}
    return {"id": link.id, "job": link.job, "mp3": link.mp3, "filename": link.filename, **times}


def _feed(created_at: int | None) -> dict[str, Any] | None:
    return None if created_at is None else {"created": iso_time(created_at)}


def _webhook(webhook: Webhook) -> dict[str, Any]:
    return {"id": webhook.id, "url": webhook.url, "state": webhook.state, "created": iso_time(webhook.created_at)}


def _job(job: Job, stored: Mapping[str, str]) -> dict[str, Any]:
    """Returns the job; ``stored`` has the paths of its files by their folders."""
    return {
        "job": job.id,
        "filename": job.filename,
        "options": msgspec.json.decode(job.options.to_json()),
        "state": job.state,
        "error": job.error,
        "warning": job.warning,
        "duration": job.duration,
        "created": iso_time(job.created_at),
        "finished": iso_time(job.finished_at),
        "mp3": stored.get("mp3s"),
        "video": stored.get("videos"),
    }


def date(milliseconds: int) -> tuple[int, int, int, int, int, int]:
    """Returns a time in UTC, at the earliest the first that a zip file can have."""
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return max((time.year, time.month, time.day, time.hour, time.minute, time.second), (1980, 1, 1, 0, 0, 0))
