"""`taskq db copy`: a queue's way from one database into another.

copy   the way: from mark to mark, and the comparison at its end
mark   how far it is, noted in the database that is copied into
rows   what is copied, and when two rows are the same
ends   how each kind of database reads and writes many rows fast
"""
