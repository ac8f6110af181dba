"""Creates tables, for every migration."""

import sqlalchemy as sa
from alembic import op


def create(name: str, *parts: sa.schema.SchemaItem) -> None:
    """Creates a table and its indexes unless they exist: MySQL keeps what a killed migration has created."""
    if not sa.inspect(op.get_bind()).has_table(name):
        columns = [part for part in parts if not isinstance(part, sa.Index)]
        op.create_table(name, *columns, mysql_engine="InnoDB", mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")
    indexed = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(name)}
    for index in parts:
        if isinstance(index, sa.Index) and index.name not in indexed:
            op.create_index(str(index.name), name, [str(column) for column in index.expressions])
