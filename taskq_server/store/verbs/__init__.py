"""What is done to tasks and sessions: plain functions over an open transaction, the same on every database."""
