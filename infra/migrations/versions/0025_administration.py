"""What administrators set for a user, and the order in which they see jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Adds the columns and the index, unless that was done."""
    inspector = sa.inspect(op.get_bind())
    existing = {column["name"] for column in inspector.get_columns("users")}
    for name, type_ in (
        ("locked_at", sa.BigInteger()),
        ("quota_bytes", sa.BigInteger()),
        ("quota_jobs", sa.Integer()),
    ):
        if name not in existing:
            op.add_column("users", sa.Column(name, type_))
    if "ix_jobs_created" not in {index["name"] for index in inspector.get_indexes("jobs")}:
        op.create_index("ix_jobs_created", "jobs", ["created_at", "id"])
