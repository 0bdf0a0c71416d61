"""What a task is: no I/O, no async, the standard library only; when a schedule fires: cronsim and tzdata too."""
