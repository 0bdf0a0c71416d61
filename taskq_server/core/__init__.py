"""What a task is: no I/O, no async, the standard library only."""
