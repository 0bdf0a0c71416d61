"""Where a call comes from, as the audit has it."""

from __future__ import annotations

import pytest

from taskq_server.rpc.origin import address_of, request_id_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:[2001:db8::7]:5000", "2001:db8::7"),
        ("unix:", "unix"),
        ("unix:/run/taskq.sock", "unix"),
    ],
)
def test_an_address_has_no_port_and_a_socket_no_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_a_request_id_is_cut_and_printable() -> None:
    assert request_id_of("x" * 200) == "x" * 128
    assert request_id_of("a\n\0b") == "a??b"
