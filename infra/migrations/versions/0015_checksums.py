"""Checksums of MP3s, which zip files have."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Adds the column, unless that was done."""
    if "mp3_crc32" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("mp3_crc32", sa.String(8)))
