"""API keys, and the version of a user's tokens: those with another version are refused."""

import sqlalchemy as sa
from alembic import op

from infra.migrations.tables import create

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Adds the table and the column, unless that was done."""
    create(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("used_at", sa.BigInteger()),
        sa.Index("ix_api_keys_owner", "owner"),
    )
    if "token_version" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("users")}:
        op.add_column("users", sa.Column("token_version", sa.Integer(), nullable=False, server_default="0"))
