"""The first tables: users, logins, jobs, pieces, mails, blobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is not there yet: MySQL keeps the tables that a killed migration had made."""
    _create(
        "users",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("username", sa.String(254), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("username"),
    )
    _create(
        "logins",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        sa.Index("ix_logins_locked_until", "locked_until"),
    )
    _create(
        "jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("video", sa.String(24)),
        sa.Column("audio", sa.String(24)),
        sa.Column("plan", sa.Text()),
        sa.Column("mp3", sa.String(24)),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("warning", sa.Text()),
        sa.Column("duration", sa.Double()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("mp3"),
        sa.UniqueConstraint("owner", "key", name="uq_jobs_owner_key"),
        sa.Index("ix_jobs_due_at", "due_at"),
        sa.Index("ix_jobs_finished_at", "finished_at"),
        sa.Index("ix_jobs_owner_created", "owner", "created_at", "id"),
    )
    _create(
        "pieces",
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("output", sa.String(24)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("job", "n"),
        sa.Index("ix_pieces_due_at", "due_at"),
    )
    _create(
        "mails",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
        sa.Index("ix_mails_due_at", "due_at"),
        sa.Index("ix_mails_job", "job"),
    )
    _create(
        "blobs",
        sa.Column("id", sa.String(24), nullable=False),
        sa.Column("store", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id"),
        sa.Index("ix_blobs_expires_at", "expires_at"),
        sa.Index("ix_blobs_job", "job"),
    )


def _create(name: str, *parts: sa.schema.SchemaItem) -> None:
    there = sa.inspect(op.get_bind())
    if not there.has_table(name):
        columns = [part for part in parts if not isinstance(part, sa.Index)]
        op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")
    indexed = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(name)}
    for index in parts:
        if isinstance(index, sa.Index) and index.name not in indexed:
            op.create_index(str(index.name), name, [str(column) for column in index.expressions])
