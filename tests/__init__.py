"""Tests, by what they need. A test is a requirement: given, when, then, its name the sentence.

unit/         nothing but the code, and texts that must say what is so
store/        a database; the same sentences on SQLite and PostgreSQL, but for test_sqlite_*.py and test_postgres_*.py
rpc/          a server whose clock stands still, over gRPC; schedules/ and neighbours/, several servers, in it
http/         the same over HTTP; dashboard/: its pages, in a browser
clients/      the clients and the command, against a server that does what the test says, or a real one
conformance/  whether the kit that tries processors notices one that is wrong
e2e/          real processes, killed for real; its conftest.py says how much of it
examples/     that README, manual and examples do what they say
packaging/    what is installed, and what runs it elsewhere; stack/: on a real container engine
support/      what several of them use: given.py and conftest.py in a folder are what that one alone does

Some of these tests start processes while calls are under way: gRPC's preparations for a fork would crash them.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
