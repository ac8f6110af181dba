"""Failed logins that are forgiven one by one. Locks from before this migration stay; counts start anew.

``failures`` stays for instances of login that still run the previous version.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the new column with its index and drops the old index, unless that was done."""
    inspector = sa.inspect(op.get_bind())
    columns = {column["name"] for column in inspector.get_columns("logins")}
    indexes = {index["name"] for index in inspector.get_indexes("logins")}
    if "clears_at" not in columns:
        op.add_column("logins", sa.Column("clears_at", sa.BigInteger(), nullable=False, server_default="0"))
    if "ix_logins_clears_at" not in indexes:
        op.create_index("ix_logins_clears_at", "logins", ["clears_at"])
    if "ix_logins_locked_until" in indexes:
        op.drop_index("ix_logins_locked_until", "logins")
