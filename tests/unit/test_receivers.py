"""common/domain/receivers.py: what an address may look like, and which addresses are the inside."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from common.domain import receivers
from common.domain.errors import InvalidField

ALLOWED = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))


def code(url: str, *addresses: str, allowed: tuple[receivers.Network, ...] = ()) -> str | None:
    """Why an address is refused, by its field's code; None when it is not."""
    try:
        receivers.check(receivers.parse(url), addresses, allowed)
    except InvalidField as error:
        return error.errors[0].code
    return None


def test_an_address_is_parsed_as_it_is_sent() -> None:
    """Host without brackets and in small letters, the usual port, path with query."""
    parse = receivers.parse
    assert parse("https://Example.COM") == receivers.Receiver("https", "example.com", 443, "/")
    assert parse("http://a.b:8080/x?y=z&w") == receivers.Receiver("http", "a.b", 8080, "/x?y=z&w")
    assert parse("https://[2606:4700::1]:8443/").host == "2606:4700::1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://example.com/", "invalid_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("gopher://example.com/", "invalid_url"),
        ("example.com", "invalid_url"),
        ("https://", "invalid_url"),
        ("https:///path", "invalid_url"),
        ("https://exa mple.com/", "invalid_url"),
        ("https://example.com/a b", "invalid_url"),
        ("https://example.com/\r\nX: y", "invalid_url"),
        ("https://example.com/#part", "invalid_url"),
        ("https://example.com\\@evil.com/", "userinfo"),
        ("https://user:pass@example.com/", "userinfo"),
        ("https://example.com@10.0.0.1/", "userinfo"),
        ("https://bücher.example/", "invalid_url"),
        ("https://-.example.com/", "invalid_url"),
        ("https://a..b/", "invalid_url"),
        ("https://[::1/", "invalid_url"),
        ("https://[zz]/", "invalid_url"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com/" + "a" * 2048, "too_long"),
        ("https://2130706433/", "webhook_address_refused"),
        ("https://0x7f000001/", "webhook_address_refused"),
        ("https://0177.0.0.1/", "webhook_address_refused"),
        ("https://127.1/", "webhook_address_refused"),
        ("https://1.1.1.1.1/", "webhook_address_refused"),
    ],
)
def test_an_odd_address_is_refused(url: str, expected: str) -> None:
    """With a code that says what is odd."""
    assert code(url) == expected


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.0.9", "192.0.0.170", "192.0.2.1",
        "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
        "::", "::1", "::127.0.0.1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1",
        "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_every_address_of_the_inside_is_refused(address: str) -> None:
    """Whatever `is_global` of this Python thinks of it."""
    assert receivers.is_inside(ip_address(address))
    assert code("https://example.com/", address) == "webhook_address_refused"
    assert code("https://example.com/", "1.1.1.1", address) == "webhook_address_refused"


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450::5"])
def test_an_address_of_the_world_is_fine(address: str) -> None:
    """By https and on a port of the list."""
    assert code("https://example.com/", address) is None
    assert code("https://example.com:8443/", address) is None
    assert code("http://example.com/", address) == "webhook_address_refused"
    assert code("https://example.com:22/", address) == "webhook_address_refused"


def test_an_operator_allows_addresses_of_the_inside() -> None:
    """Then any port and plain http will do, and only for these."""
    assert code("http://ci:9000/", "10.1.2.3", allowed=ALLOWED) is None
    assert code("http://ci/", "fd00::1", allowed=ALLOWED) is None
    assert code("http://ci/", "10.2.0.1", allowed=ALLOWED) == "webhook_address_refused"
    assert code("http://ci/", "10.1.2.3", "1.1.1.1", allowed=ALLOWED) == "webhook_address_refused"
    assert code("https://ci/", "10.1.2.3", "1.1.1.1", allowed=ALLOWED) is None


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost.", "metadata", "x.localhost", "metadata.google.internal", "a.b.svc",
     "a.b.svc.cluster.local", "printer.local", "router.lan"],
)  # fmt: skip
def test_a_name_of_the_inside_counts_when_it_does_not_resolve(host: str) -> None:
    """It may resolve from where the sender is; an unknown name of the world may, too."""
    assert code(f"https://{host}/") == "webhook_address_refused"
    assert code("https://hooks.example.com/") is None
