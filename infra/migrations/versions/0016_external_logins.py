"""Accounts of identity providers, and the users whom they log in."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "external_logins",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_external_logins_owner", "owner"),
    )
