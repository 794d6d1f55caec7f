"""Alembic's entry: runs the migrations on the connection that ``danlu.store.migrate`` hands over."""

from alembic import context

from danlu.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    # SQLite undoes changes of tables as well, once the driver does not begin transactions by itself (``database``).
    transactional_ddl=True,
)
context.run_migrations()
