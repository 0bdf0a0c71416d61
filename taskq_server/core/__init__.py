"""What a task is: no I/O, no async, the standard library only; when a schedule fires: cronsim and tzdata too.

task             what a task is, and every legal change of its state
retry            how often and when it is tried again
matching         which processor gets it
history          what happened to it, and what will; explaining: why it is not running
fingerprint      which failures are alike
filter/          which tasks somebody asks for
bulk_operation   the same done to many
recurring        a task that recurs; schedule/: when
sums             what was done, as numbers that can be added up; event: hints of what has changed
rights           what a caller may do; token: by what they show who they are; origin: who asks for a change
errors           every error that is raised on purpose
"""
