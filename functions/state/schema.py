"""The tables. Their transitions are in the modules beside this one.

Every time is an integer: milliseconds since 1970-01-01 UTC by the database's own clock, so that functions whose clocks
differ agree. Ids of users, jobs and uploads are 32 hexadecimal digits, ids of blobs 24.
"""

import re
from typing import Any, Final, NewType

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

#: A user's id: 32 lowercase hexadecimal digits.
UserId = NewType("UserId", str)
#: Milliseconds of an hour.
HOUR: Final = 3_600_000
_ID: Final = re.compile("[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Returns whether the text has the form of a row's random id: 32 hexadecimal digits. Others are not looked up."""
    return _ID.fullmatch(text) is not None


metadata = MetaData()

# In MySQL's default collation "Ann" and "ann" are the same key; in those of the other databases they are not.
_OPTIONS: Any = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class now(FunctionElement[int]):
    """The database's clock in milliseconds; in PostgreSQL the time of the call, not of the transaction."""

    type = BigInteger()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(*_: object, **__: object) -> str:
    # 2440587.5 is the Julian day of 1970-01-01 (https://sqlite.org/lang_datefunc.html).
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(now, "postgresql")
def _now_postgresql(*_: object, **__: object) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"


@compiles(now, "mysql")
@compiles(now, "mariadb")
def _now_mysql(*_: object, **__: object) -> str:
    # Not UNIX_TIMESTAMP(), which reads its argument in the session's time zone: there one hour a year occurs twice.
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)"


def _work_columns(*, is_swept: bool = True) -> list[Column[Any]]:
    """Returns the columns of every row that workers lease.

    ``due_at`` serves as the outbox: every unfinished row has one, and sweep emits the row's event again once it is
    past. ``lease`` is the token of the attempt that has the row until ``lease_until``. ``attempts`` counts them.
    """
    return [
        Column("attempts", Integer, nullable=False, default=0),
        Column("due_at", BigInteger, index=is_swept),
        Column("lease", String(32)),
        Column("lease_until", BigInteger),
    ]


#: ``locked_at`` is since when an administrator keeps the user out. ``quota_bytes`` and ``quota_jobs`` take the place of
#: QUOTA_BYTES and QUOTA_JOBS for this user; NULL if an administrator has set none.
users = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("username", String(254), nullable=False, unique=True),
    Column("email", String(254), nullable=False),
    Column("name", String(200), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("confirmed_at", BigInteger),
    Column("unsubscribed_at", BigInteger),
    Column("token_version", Integer, nullable=False, default=0, server_default="0"),
    Column("deleted_at", BigInteger, index=True),
    Column("locked_at", BigInteger),
    Column("quota_bytes", BigInteger),
    Column("quota_jobs", Integer),
    **_OPTIONS,
)

#: API keys of users, by the SHA-256 of the key, which has 178 random bits. ``scopes`` are separated by spaces;
#: ``used_at`` is the beginning of the day on which the key was last used.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("scopes", String(100), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
    **_OPTIONS,
)

#: Tokens that were logged out, by their ids, until they expire.
ended_tokens = Table(
    "ended_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    **_OPTIONS,
)

#: Logins, by the id of the token that each has given, until it expires. ``used_at`` is the beginning of the day on
#: which the token was last used.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("token_version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("agent", String(200), nullable=False),
    Column("network", String(45), nullable=False),
    **_OPTIONS,
)

#: The presets of users: ``options`` is a JSON object of texts, as in a form.
presets = Table(
    "presets",
    metadata,
    Column("owner", String(32), primary_key=True),
    Column("name", String(60), primary_key=True),
    Column("options", Text, nullable=False),
    **_OPTIONS,
)

#: Accounts of identity providers, by the SHA-256 of the provider and its id for the account: for some collations, two
#: ids are one.
external_logins = Table(
    "external_logins",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("provider", String(255), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    **_OPTIONS,
)

#: Links to MP3s that users make for others (``functions.auth.shared_links``): ``digest`` is the SHA-256 of a link's
#: secret. A link of which the job has been deleted, or has another MP3, leads nowhere.
shared_links = Table(
    "shared_links",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("job", String(32), nullable=False),
    Column("mp3", String(24), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    **_OPTIONS,
)

#: Podcast feeds: ``digest`` is the SHA-256 of the secret in a feed's address.
feeds = Table(
    "feeds",
    metadata,
    Column("owner", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    **_OPTIONS,
)

#: Failed logins per account and network, in a table because throttling must outlive a function that scales to zero; the
#: networks that an account has logged in from; and what networks and addresses have used of their allowances
#: (``functions.auth.allowance``). A row has no effect after ``clears_at``: each failure moves it by 15 minutes, which
#: makes it the level of a leaky bucket. Only the version before migration 0004 uses ``failures``.
logins = Table(
    "logins",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("locked_until", BigInteger, nullable=False),
    Column("clears_at", BigInteger, nullable=False, default=0, server_default="0", index=True),
    **_OPTIONS,
)

# In ``jobs`` and ``pieces``, ``deferred_at`` is when a row was left for later because enough of its owner's rows were
# being worked on (``fairness``); NULL if it may start. ``tag`` is the blob of the ID3 tag that has taken the place of
# the first ``sound_at`` bytes of the MP3's blob (``tags``); NULL if the MP3 has the tag that it was made with. If an
# MP3 was cut out of that of the job ``source`` (``parts``), it is followed by the bytes from ``sound_from`` to
# ``sound_to`` of the blob ``sound``. ``fetching`` is the address of a video that is being fetched and what is there of
# it, as JSON; NULL once it is fetched (``fetches``). ``waveform`` is that of the MP3 (``functions.waveform``); NULL if
# its frames were copied, and before migration 0026. What a job's receipt is made from, ``size`` to ``pods``, is NULL or
# 0 in jobs from before migration 0010.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(32), nullable=False),
    Column("key", String(255)),
    Column("filename", String(255), nullable=False),
    Column("options", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("video", String(24)),
    Column("audio", String(24)),
    Column("plan", Text),
    Column("mp3", String(24), unique=True),
    Column("tag", String(24)),
    Column("sound_at", BigInteger),
    Column("mp3_crc32", String(8)),
    Column("waveform", LargeBinary),
    Column("source", String(32)),
    Column("sound", String(24), index=True),
    Column("sound_from", BigInteger),
    Column("sound_to", BigInteger),
    Column("total", Integer, nullable=False, default=0),
    Column("done", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("error_code", String(32)),
    Column("warning", Text),
    Column("duration", Double),
    Column("tracks", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, index=True),
    *_work_columns(),
    Column("deferred_at", BigInteger),
    Column("callback", Text),
    Column("fetching", Text),
    Column("fetched_at", BigInteger),
    Column("size", BigInteger),
    Column("mp3_size", BigInteger),
    Column("started_at", BigInteger),
    Column("stage_at", BigInteger),
    Column("read_at", BigInteger),
    Column("encoded_at", BigInteger),
    Column("cpu_ms", BigInteger, nullable=False, default=0, server_default="0"),
    Column("pod", String(64)),
    Column("pods", Integer),
    UniqueConstraint("owner", "key", name="uq_jobs_owner_key"),
    Index("ix_jobs_owner_created", "owner", "created_at", "id"),
    Index("ix_jobs_owner_finished", "owner", "finished_at"),
    Index("ix_jobs_owner_deferred", "owner", "deferred_at"),
    Index("ix_jobs_lease_until", "lease_until"),
    Index("ix_jobs_created", "created_at", "id"),
    **_OPTIONS,
)

pieces = Table(
    "pieces",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(32), nullable=False, server_default=""),
    Column("plan", Text, nullable=False),
    Column("output", String(24)),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    *_work_columns(),
    Column("deferred_at", BigInteger),
    Column("pod", String(64)),
    Index("ix_pieces_owner_deferred", "owner", "deferred_at"),
    Index("ix_pieces_lease_until", "lease_until"),
    **_OPTIONS,
)

#: A mail is about a job, and goes to its owner, or asks the user ``owner`` to confirm an address, or has the link that
#: resets the password of ``owner``.
mails = Table(
    "mails",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job", String(32), index=True),
    Column("owner", String(32), index=True),
    Column("kind", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    *_work_columns(),
    **_OPTIONS,
)

#: Every blob that was begun and has not been deleted. ``expires_at`` is NULL once a job retains the blob. ``size`` is
#: the bytes of a video or MP3 that is retained, or that an upload or conversion in progress may have; 0 for the others.
blobs = Table(
    "blobs",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("store", String(16), nullable=False),
    Column("owner", String(32), nullable=False, index=True),
    Column("job", String(32), nullable=False, index=True),
    Column("size", BigInteger, nullable=False, default=0, server_default="0"),
    Column("expires_at", BigInteger, index=True),
    **_OPTIONS,
)

#: Files that arrive in more than one request. ``received`` bytes are durable, with the CRC-32C ``crc32c``; ``about`` is
#: the Upload-Metadata as received; ``attempts`` numbers the writers. A row is deleted together with its blob's row.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(32), nullable=False),
    Column("blob", String(24), nullable=False, unique=True),
    Column("job", String(32), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("options", Text, nullable=False),
    Column("about", Text, nullable=False),
    Column("length", BigInteger),
    Column("received", BigInteger, nullable=False, default=0),
    Column("crc32c", String(8), nullable=False, default="00000000"),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    *_work_columns(is_swept=False),
    **_OPTIONS,
)

#: Addresses that users have registered to be told of their jobs.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(32), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("rate", Integer),
    Column("calls", Integer),
    Column("free_at", BigInteger),
    **_OPTIONS,
)

#: What the disks of the media stores have, as sweep has measured it: one row for each disk, under the name of the first
#: of its ``stores``. ``silent_since`` is NULL if these answered when they were asked last.
disks = Table(
    "disks",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("stores", String(64), nullable=False),
    Column("used", BigInteger),
    Column("total", BigInteger),
    Column("floor", BigInteger),
    Column("measured_at", BigInteger),
    Column("silent_since", BigInteger),
    **_OPTIONS,
)

#: One event on its way to one webhook, or to the callback of its job, which has no ``webhook``. A ping has no ``job``.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("webhook", String(32), index=True),
    Column("owner", String(32), nullable=False),
    Column("job", String(32), index=True),
    Column("kind", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("tried_at", BigInteger),
    *_work_columns(),
    Index("ix_deliveries_owner_created", "owner", "created_at", "id"),
    **_OPTIONS,
)

#: What was counted (``functions.state.counters``). The value of a series is the sum of its rows.
counters = Table(
    "counters",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("series", String(160), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("counted_at", BigInteger, nullable=False),
    **_OPTIONS,
)
