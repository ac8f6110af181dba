"""Logins, which their users list and end."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("token_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("network", sa.String(45), nullable=False),
        sa.Index("ix_sessions_owner", "owner"),
        sa.Index("ix_sessions_expires_at", "expires_at"),
    )
