"""PostgreSQL: one database, any number of servers.

store    the store: which verb runs on which lane
lane     one connection, which those who wait share
engine   how it is connected; plans: what it keeps of its statements
sql      what is said to it differently
bell     rings between the servers
start    what must hold before it may be used
faults   what it may raise, and what that is to those who wait
admin    what an operator does to it
"""
