"""Drives any processor, in whatever language, through what the contract asks of it, and says which promises hold.

The way of a run:
    command.py   `taskq conformance`
    kit.py       runs the promises side by side, each with a server and a processor of its own; Verdict
    scene.py     one promise's stage: what a script may do, wait for and rule out
    server.py    the server's side of ProcessorService, by script; it notes all that it is asked
    stream.py    one task stream, from the server's side
    authority.py certificates for the scripts that speak TLS
    program.py   the processor under test, in a process of its own
    work.py      the four tasks that it must know, as docs/clients.md describes them
    promise.py   Promise, and how a script says that it is broken
    promises/    the scripts: running.py, leases.py, reports.py, streams.py, sessions.py, stopping.py
"""
