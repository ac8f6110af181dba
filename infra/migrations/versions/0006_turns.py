"""The owner of a piece, rows that wait for their owner's turn, and indexes that find those and the ones at work."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_INDEXES = {
    "jobs": {"ix_jobs_owner_deferred": ["owner", "deferred_at"], "ix_jobs_lease_until": ["lease_until"]},
    "pieces": {"ix_pieces_owner_deferred": ["owner", "deferred_at"], "ix_pieces_lease_until": ["lease_until"]},
}


def upgrade() -> None:
    """Adds the columns and the indexes unless they exist, and fills in the owners of the pieces."""
    inspector = sa.inspect(op.get_bind())
    columns = {table: {column["name"] for column in inspector.get_columns(table)} for table in _INDEXES}
    if "owner" not in columns["pieces"]:
        op.add_column("pieces", sa.Column("owner", sa.String(32), nullable=False, server_default=""))
    op.execute("UPDATE pieces SET owner = (SELECT owner FROM jobs WHERE jobs.id = pieces.job) WHERE owner = ''")
    for table, indexes in _INDEXES.items():
        if "deferred_at" not in columns[table]:
            op.add_column(table, sa.Column("deferred_at", sa.BigInteger()))
        existing = {index["name"] for index in inspector.get_indexes(table)}
        for name in indexes.keys() - existing:
            op.create_index(name, table, indexes[name])
