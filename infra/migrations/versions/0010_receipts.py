"""What a job's receipt is made from, and an index of each owner's unfinished jobs. Older jobs have no receipt."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Adds the columns and the index, unless that was done."""
    inspector = sa.inspect(op.get_bind())
    columns: dict[str, list[sa.Column[Any]]] = {
        "jobs": [
            sa.Column("size", sa.BigInteger()),
            sa.Column("mp3_size", sa.BigInteger()),
            sa.Column("started_at", sa.BigInteger()),
            sa.Column("stage_at", sa.BigInteger()),
            sa.Column("read_at", sa.BigInteger()),
            sa.Column("encoded_at", sa.BigInteger()),
            sa.Column("cpu_ms", sa.BigInteger(), nullable=False, server_default="0"),
            sa.Column("pod", sa.String(64)),
            sa.Column("pods", sa.Integer()),
        ],
        "pieces": [sa.Column("pod", sa.String(64))],
    }
    for table, added in columns.items():
        existing = {column["name"] for column in inspector.get_columns(table)}
        for column in added:
            if column.name not in existing:
                op.add_column(table, column)
    if "ix_jobs_owner_finished" not in {index["name"] for index in inspector.get_indexes("jobs")}:
        op.create_index("ix_jobs_owner_finished", "jobs", ["owner", "finished_at"])
