"""ID3 tags that have replaced those of finished MP3s."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Adds the columns, unless that was done."""
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}
    if "tag" not in columns:
        op.add_column("jobs", sa.Column("tag", sa.String(24)))
    if "sound_at" not in columns:
        op.add_column("jobs", sa.Column("sound_at", sa.BigInteger()))
