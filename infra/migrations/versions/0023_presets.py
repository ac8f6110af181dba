"""The presets of users."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0023"
down_revision = "0021"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "presets",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("options", sa.Text(), nullable=False),
    )
