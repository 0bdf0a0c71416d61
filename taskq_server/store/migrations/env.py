"""Runs migrations on the connection, and in the transaction, that `store.migrate` hands over; or writes them as SQL."""

from alembic import context

from taskq_server.store.schema import metadata

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
else:
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
    )
context.run_migrations()
