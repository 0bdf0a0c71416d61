"""Where tasks are safe.

store.py        what storage can do, in batches. Its bases say it of one subject each: task_verbs.py, session_verbs.py,
                schedule_verbs.py, operation_verbs.py, figure_verbs.py. shared.py: what several servers need besides
running.py      how verbs are run; group.py: what everybody shares who waits for the same transaction
verbs/          how each thing is done: plain functions over an open transaction, the same on both databases
transaction.py  what they work with
memory.py       what is known without asking the database; waiting.py: when what falls due; offer.py: seats for it
rows.py         what stands in a row <-> what the domain calls it; schedule_rows.py and bulk_rows.py: the same
many.py         one statement for many rows; few.py: as many as a statement bears
sql.py          the little that the two databases say differently
sqlite/         one file, one server
postgres/       one database, any number of servers
schema.py       the tables; migrations/ their history, which migrate.py runs
copying/        from one database into another
"""
