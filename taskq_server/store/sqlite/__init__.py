"""SQLite: one file, one server.

store               the store: one connection that writes, one that reads
shared_connection   one of them, in a thread of its own, which those who wait share
sql                 what is said to it differently; packed: rows in one piece
start               what must hold before the file may be used
box                 what operators ask of the server that has it
admin               what an operator does to it; backup: a copy of it
"""
