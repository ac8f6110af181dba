"""Webhooks, their deliveries, and the callbacks of jobs."""

import sqlalchemy as sa
from alembic import op

from infra.migrations.tables import create

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Adds the tables and the column, unless that was done."""
    create(
        "webhooks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Index("ix_webhooks_owner", "owner"),
    )
    create(
        "deliveries",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("webhook", sa.String(32)),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("job", sa.String(32)),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("tried_at", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger()),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Index("ix_deliveries_webhook", "webhook"),
        sa.Index("ix_deliveries_job", "job"),
        sa.Index("ix_deliveries_due_at", "due_at"),
        sa.Index("ix_deliveries_owner_created", "owner", "created_at", "id"),
    )
    if "callback" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("callback", sa.Text()))
