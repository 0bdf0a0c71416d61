"""Where tasks are safe: `Store` says what storage can do, `sqlite` does it on one file."""
