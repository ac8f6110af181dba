"""Confirmed addresses and the choice not to get mails. Users from before this migration count as confirmed."""

import sqlalchemy as sa
from alembic import op

from functions.state.schema import now

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns, unless that was done; mails may belong to a user instead of a job."""
    inspector = sa.inspect(op.get_bind())
    columns = {column["name"] for column in inspector.get_columns("users")}
    if "confirmed_at" not in columns:
        op.add_column("users", sa.Column("confirmed_at", sa.BigInteger()))
    if "unsubscribed_at" not in columns:
        # The last column is added after the update: a migration that was killed before repeats it.
        users = sa.table("users", sa.column("confirmed_at", sa.BigInteger()))
        op.execute(users.update().where(users.c.confirmed_at.is_(None)).values(confirmed_at=now()))
        op.add_column("users", sa.Column("unsubscribed_at", sa.BigInteger()))
    if "owner" not in {column["name"] for column in inspector.get_columns("mails")}:
        op.add_column("mails", sa.Column("owner", sa.String(32)))
    if "ix_mails_owner" not in {index["name"] for index in inspector.get_indexes("mails")}:
        op.create_index("ix_mails_owner", "mails", ["owner"])
    # SQLite changes a column by copying its table.
    with op.batch_alter_table("mails") as table:
        table.alter_column("job", existing_type=sa.String(32), nullable=True)
