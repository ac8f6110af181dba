"""Alembic's entry point: runs the migrations on the connection that it is given."""

from alembic import context

from functions.state.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,
)
context.run_migrations()
