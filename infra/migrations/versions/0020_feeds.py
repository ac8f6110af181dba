"""Podcast feeds of users."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "feeds",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
