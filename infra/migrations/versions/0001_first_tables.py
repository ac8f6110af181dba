"""The first tables: users, logins, jobs, pieces, mails, blobs."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables that do not exist yet."""
    create(
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
    create(
        "logins",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        sa.Index("ix_logins_locked_until", "locked_until"),
    )
    create(
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
    create(
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
    create(
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
    create(
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
