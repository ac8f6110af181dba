"""Waveforms of MP3s. Those of older jobs are not known."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Adds the column, unless that was done."""
    if "waveform" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("jobs")}:
        op.add_column("jobs", sa.Column("waveform", sa.LargeBinary()))
