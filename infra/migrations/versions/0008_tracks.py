"""The audio tracks of a job's video. Jobs from before this migration list none."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Adds the column, unless that was done."""
    if "tracks" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("tracks", sa.Text()))
