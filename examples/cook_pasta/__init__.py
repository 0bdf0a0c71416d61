"""A restaurant: orders are planned, cooks cook them, one cook is killed on the way, and every dish is served once.

orders.py    the scheduler: which dishes, for when
cooks.py     the processors: who can cook what
kitchen.py   the processes: a server, and cooks that come and go
display.py   what one sees meanwhile
__main__.py  the demo, about twenty seconds: `make demo`
"""
