"""When a user was deleted; the row stays until everything of the user's is deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Adds the column and its index, unless that was done."""
    inspector = sa.inspect(op.get_bind())
    if "deleted_at" not in {column["name"] for column in inspector.get_columns("users")}:
        op.add_column("users", sa.Column("deleted_at", sa.BigInteger()))
    if "ix_users_deleted_at" not in {index["name"] for index in inspector.get_indexes("users")}:
        op.create_index("ix_users_deleted_at", "users", ["deleted_at"])
