"""The nouns of the `taskq` command, one a file."""
