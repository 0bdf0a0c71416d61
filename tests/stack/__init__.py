"""docker/compose.yaml on a real engine: `make docker-test`. No part of `make test`, as most machines have no engine.

engine.py     the compose command, and what containers are
page.py       what the page tells to type
grafana.py    what Grafana shows
__main__.py   what is done to the stack, and what must come of it
"""
