"""Runs migrations on the connection, and in the transaction, that `store.migrate` hands over."""

from alembic import context

from taskq_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
