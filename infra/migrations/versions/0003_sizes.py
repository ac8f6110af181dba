"""The blobs' sizes and an index on their owners, for quotas. Blobs from before this migration count as 0 bytes."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the column and the index unless they exist."""
    inspector = sa.inspect(op.get_bind())
    if "size" not in {column["name"] for column in inspector.get_columns("blobs")}:
        op.add_column("blobs", sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"))
    if "ix_blobs_owner" not in {index["name"] for index in inspector.get_indexes("blobs")}:
        op.create_index("ix_blobs_owner", "blobs", ["owner"])
