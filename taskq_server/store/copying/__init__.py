"""`taskq db copy`: a queue's way from one database into another."""
