"""How many calls a minute the receivers of webhooks allow."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Adds the columns, unless that was done."""
    existing = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("webhooks")}
    for name, kind in (("rate", sa.Integer()), ("calls", sa.Integer()), ("free_at", sa.BigInteger())):
        if name not in existing:
            op.add_column("webhooks", sa.Column(name, kind))
