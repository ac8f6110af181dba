"""Counters that only grow, for the metrics."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "counters",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("series", sa.String(160), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
    )
