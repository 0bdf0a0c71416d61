"""A scheduler and a processor in each language, and the tasks that `taskq conformance` drives."""
