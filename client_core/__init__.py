"""What the clients share: the connection, the errors, the payloads, the times.

channel.py   the channel to the server, and where that server is
access.py    how it is entered: TLS, certificates, the token
knock.py     why a server that is there cannot be talked to
home.py      the process and the event loop in which something may be used
errors.py    every error of a call, as a tree
payload.py   values to bytes and back
shapes.py    JSON values to the types that a program declares
times.py     spans and moments as people write them, to and from the wire
tracing.py   spans, for programs that trace
backoff.py   how long to wait before trying again
"""
