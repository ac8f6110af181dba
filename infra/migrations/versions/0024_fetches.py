"""Videos that are fetched from an address, and codes of errors."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Adds the columns, unless that was done."""
    existing = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}
    for name, kind in (("fetching", sa.Text()), ("fetched_at", sa.BigInteger()), ("error_code", sa.String(32))):
        if name not in existing:
            op.add_column("jobs", sa.Column(name, kind))
