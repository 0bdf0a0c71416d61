"""Ours and the peers, side by side: the same work, on the same machine, in turns.

`make bench-peers` says what it measures and how long it takes; `--help` what can be chosen.

field.py       who takes part, and every setting of each with its reason: read this first
players/       what each does when it is told to, one file a system, written with its own documented interface
stage.py       one of them set up anew: its store, its server, its workers, and how its results are counted
redis.py       a Redis of its own
lifecycle.py  one_by_one.py  latency.py  lateness.py     the four parts: each runs one system, once
tables.py      what is shown of them, and the ratios
"""
