"""Links to MP3s that users make for others."""

import sqlalchemy as sa

from infra.migrations.tables import create

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Creates the table unless it exists."""
    create(
        "shared_links",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("mp3", sa.String(24), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_shared_links_owner", "owner"),
        sa.Index("ix_shared_links_expires_at", "expires_at"),
    )
