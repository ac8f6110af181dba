"""MP3s that were cut out of other MP3s, and share their sound."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Adds the columns and the index, unless that was done."""
    found = sa.inspect(op.get_bind())
    columns = {column["name"] for column in found.get_columns("jobs")}
    for column in (
        sa.Column("source", sa.String(32)),
        sa.Column("sound", sa.String(24)),
        sa.Column("sound_from", sa.BigInteger()),
        sa.Column("sound_to", sa.BigInteger()),
    ):
        if column.name not in columns:
            op.add_column("jobs", column)
    if "ix_jobs_sound" not in {index["name"] for index in found.get_indexes("jobs")}:
        op.create_index("ix_jobs_sound", "jobs", ["sound"])
