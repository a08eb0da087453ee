"""common/entrypoints/client_address.py: security.md rows 19 to 24."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.entrypoints.client_address import client, parse

PROXIES = tuple(map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "::1/128", "fd00::/8")))
QUEUE_PROXY = "127.0.0.1"


def ask(*lines: str, peer: str | None = QUEUE_PROXY, overwrites: bool = False) -> str | None:
    return client(peer, lines, PROXIES, edge_overwrites=overwrites)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7, 10.1.1.1"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7", "10.1.1.1"], "203.0.113.7"),
        (["10.9.9.9, 203.0.113.7"], "203.0.113.7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, ::ffff:10.0.0.1"], "203.0.113.7"),
        (["2001:DB8::1"], "2001:db8::1"),
        (["2001:db8::1, fd00::1"], "2001:db8::1"),
        (["  203.0.113.7  "], "203.0.113.7"),
        (["garbage, 203.0.113.7"], "203.0.113.7"),
    ],
)
def test_the_client_is_the_rightmost_address_outside_the_proxies(
    lines: list[str], expected: str
) -> None:
    """Whatever a client wrote itself stands to the left and counts for nothing."""
    assert ask(*lines) == expected


@pytest.mark.parametrize(
    "lines",
    [
        ["garbage"],
        [""],
        [","],
        ["203.0.113.7,"],
        ["203.0.113.7, "],
        ["203.0.113.7, garbage, 10.0.0.1"],
        ["203.0.113.7:8080"],
        ["[2001:db8::1]"],
        ["[2001:db8::1]:80"],
        ["fe80::1%eth0"],
        ["203.0.113.007"],
        ["0x7f000001"],
        ["2130706433"],
        ["203.0.113.7/32"],
        ["unknown"],
        ["_hidden"],
        ["²⁰³.0.113.7"],
        ["203.0.113.7", ""],
    ],
)
def test_anything_odd_among_the_trusted_hops_makes_it_unknown(lines: list[str]) -> None:
    """Never a guess: address-restricted keys are refused then, others go on."""
    assert ask(*lines) is None


@pytest.mark.parametrize("lines", [[], ["6.6.6.6"], ["garbage"]])
def test_a_peer_outside_the_proxies_is_the_client(lines: list[str]) -> None:
    """What it says of others is not even read."""
    assert ask(*lines, peer="203.0.113.9") == "203.0.113.9"


def test_a_peer_that_is_an_ipv4_address_in_ipv6_is_that_address() -> None:
    """Dual-stack sockets report `::ffff:`."""
    assert ask("203.0.113.7", peer="::ffff:127.0.0.1") == "203.0.113.7"


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/rdev.sock"])
def test_without_a_peer_nothing_is_known(peer: str | None) -> None:
    """A socket in the file system has no address."""
    assert ask("203.0.113.7", peer=peer) is None


@pytest.mark.parametrize(
    ("lines", "overwrites", "expected"),
    [
        (["10.1.1.1, 10.2.2.2"], False, None),
        (["10.1.1.1, 10.2.2.2"], True, "10.1.1.1"),
        (["garbage, 10.2.2.2"], True, None),
        ([], True, None),
        ([], False, None),
    ],
)
def test_when_all_are_trusted_the_edge_decides(
    lines: list[str], overwrites: bool, expected: str | None
) -> None:
    """The leftmost counts only where the edge is declared to overwrite what clients send."""
    assert ask(*lines, overwrites=overwrites) == expected


@given(st.lists(st.text(max_size=40), max_size=4), st.booleans())
def test_no_header_breaks_it(lines: list[str], overwrites: bool) -> None:
    """Any text gives an address in canonical form, or None."""
    found = ask(*lines, overwrites=overwrites)
    assert found is None or str(parse(found)) == found


def test_without_proxies_only_the_peer_counts() -> None:
    """Nothing is trusted by default."""
    assert client("127.0.0.1", ["6.6.6.6"], (), edge_overwrites=True) == "127.0.0.1"
