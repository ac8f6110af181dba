"""mp3burst on the servers of a real installation: RabbitMQ, MongoDB, MariaDB or PostgreSQL, and an SMTP server.

with installation(tmp_path, PostgreSQL) as place:
    me = Client(place.platform.url).sign_up()
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pymongo import MongoClient
from sqlalchemy import func, select

from functions.state.database import Database
from functions.state.schema import metadata
from tests.support.databases import USERS_KEY
from tests.support.platform import Platform, start
from tests.support.processes import wait_for
from tests.support.servers.mongodb import MongoDB
from tests.support.servers.rabbitmq import RabbitMQ
from tests.support.servers.smtp import SmtpServer, running
from tests.support.servers.sql import SqlServer


@dataclass
class Installation:
    """The platform and its servers, all running."""

    platform: Platform
    rabbitmq: RabbitMQ
    mongodb: MongoDB
    sql: SqlServer
    smtp: SmtpServer
    database: Database

    def rows(self, table: str, **values: object) -> int:
        """Counts the rows of a table that have these values."""
        target = metadata.tables[table]
        where = [target.c[name] == value for name, value in values.items()]
        query = select(func.count()).select_from(target).where(*where)
        return int(self.database.run(lambda connection: connection.scalar(query)) or 0)

    def orphaned_files(self) -> int:
        """Counts the files in GridFS that have chunks but no row in the blobs table."""
        with MongoClient[dict[str, object]](self.mongodb.url) as client:
            kept = self.database.run(lambda connection: {*connection.scalars(select(metadata.tables["blobs"].c.id))})
            found = {
                str(owner)
                for name in ("videos", "mp3s", "pieces")
                for owner in client[name]["fs.chunks"].distinct("files_id")
            }
        return len(found - kept)

    def settled(self, seconds: float = 60) -> None:
        """Waits until every event has been handled and every mail sent."""
        wait_for(
            lambda: not self.rows("mails", state="due") and not self.rows("jobs", finished_at=None),
            "every job ended and its mail sent",
            seconds,
        )


def addresses(amqp_url: str, sql: SqlServer, mongodb: MongoDB, smtp: SmtpServer) -> dict[str, str]:
    """Returns the variables that select these servers."""
    return {
        "AMQP_URL": amqp_url,
        "DATABASE_URL": sql.url,
        "DATABASE_USERS_KEY": USERS_KEY,
        "MONGO_URI": f"{mongodb.url}/videos",
        "MONGO_MP3_URI": f"{mongodb.url}/mp3s",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtp.port),
        "SMTP_SECURITY": "none",
        "MAIL_FROM": "mp3burst@example.org",
    }


@contextmanager
def installation(directory: Path, sql: type[SqlServer], env: Mapping[str, str] | None = None) -> Iterator[Installation]:
    """Starts the servers and a platform that uses them; ``env`` adds or overrides variables."""
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQ())
        mongodb = stack.enter_context(MongoDB())
        database = stack.enter_context(sql())
        smtp = stack.enter_context(running())
        variables = {**addresses(rabbitmq.url, database, mongodb, smtp), **(env or {})}
        platform = stack.enter_context(start(directory / "data", env=variables))
        pool = Database(database.url)
        stack.callback(pool.close)
        yield Installation(platform, rabbitmq, mongodb, database, smtp, pool)
