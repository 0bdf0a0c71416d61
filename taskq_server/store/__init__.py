"""Where tasks are safe.

store.py        what storage can do, in batches; `shared.py`, what several servers need besides
verbs/          how each thing is done: plain functions over an open transaction, the same on both databases
sql.py          the little that the two databases say differently; `many.py`, one statement for many rows
sqlite/         one file, one server
postgres/       one database, any number of servers
schema.py       the tables; migrations/ their history
copying/        from one database into another
"""
