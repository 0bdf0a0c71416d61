"""What each system does when it is told to: enqueue so many, at such a rate, for such an instant.

All but `ours` run in the peers' environment (`.venv-peers`), where nothing of ours is installed: they may import the
standard library, their system, and `play` alone. The checks of types leave them out, for there is nothing to check them
against.
"""
