"""``failures`` of logins for instances of login that still run the version before migration 0004.

That migration once dropped the column, so wrong passwords got 500 from them. New rows need a default: the current
version does not write it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds the column where it was dropped, and its default where it was not, unless that was done."""
    columns = {column["name"]: column for column in sa.inspect(op.get_bind()).get_columns("logins")}
    if "failures" not in columns:
        op.add_column("logins", sa.Column("failures", sa.Integer(), nullable=False, server_default="0"))
    elif columns["failures"]["default"] is None:
        # SQLite copies the table, within the transaction of the migrations.
        with op.batch_alter_table("logins") as table:
            table.alter_column("failures", existing_type=sa.Integer(), existing_nullable=False, server_default="0")
