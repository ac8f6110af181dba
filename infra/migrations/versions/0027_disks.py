"""What the disks of the media stores have."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "disks",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("stores", sa.String(64), nullable=False),
        sa.Column("used", sa.BigInteger()),
        sa.Column("total", sa.BigInteger()),
        sa.Column("floor", sa.BigInteger()),
        sa.Column("measured_at", sa.BigInteger()),
        sa.Column("silent_since", sa.BigInteger()),
    )
