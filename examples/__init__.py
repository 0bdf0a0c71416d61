"""Finished uses of taskq, each run by a test."""
