"""Tokens that were logged out before they expired."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "ended_tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_ended_tokens_owner", "owner"),
        sa.Index("ix_ended_tokens_expires_at", "expires_at"),
    )
