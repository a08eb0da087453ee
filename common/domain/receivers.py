"""Where a webhook may go: the form of its address, and the addresses that nobody outside may reach.

Whoever may create a webhook chooses what this server connects to, so everything of the inside is
refused (SSRF): when the webhook is created, and again for the address that is really connected to.
`ip_address.is_global` is not enough: it passes multicast, 6to4, NAT64 and others on some versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from common.domain.errors import FieldError, InvalidField

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL: Final = 2048
PORTS: Final = {"https": 443, "http": 80}
PUBLIC_PORTS: Final = frozenset({443, 8443})

# Beside what `is_global` refuses. IPv6 the other way round: only 2000::/3 has receivers at all.
_INSIDE_V4: Final = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments, whole: two addresses of it count as global
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",  # multicast
        "168.63.129.16/32",  # Azure's host: metadata under a public address
    )
)
_UNICAST_V6: Final = ip_network("2000::/3")
_INSIDE_V6: Final = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",  # documentation
    )
)
# Names that mean the inside wherever they resolve; they count when they do not resolve from here.
_INSIDE_NAMES: Final = re.compile(
    r"[^.]+|.*\.(localhost|local|internal|intranet|lan|corp|home|svc|home\.arpa|cluster\.local)"
)
_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?(?P<query>\?[!-~]*)?"
)
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@dataclass(frozen=True)
class Receiver:
    """A parsed address. `target` is path and query as they are sent."""

    scheme: str
    host: str
    port: int
    target: str


def parse(url: str) -> Receiver:
    """The parts of `url`. Raises InvalidField for anything but a plain http(s) address.

    Stricter than RFC 3986, so that no two readers of one address can disagree.
    """
    if len(url) > MAX_URL:
        raise _wrong("too_long", f"has more than {MAX_URL} characters")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise _wrong("userinfo", "must not hold a user or password; use a header for secrets")
    if "#" in url or "\\" in url:
        raise _wrong("invalid_url", "must not hold # or \\")
    match = _URL.fullmatch(url)
    if match is None:
        raise _wrong("invalid_url", "must look like https://host/path, in ASCII (xn-- for others)")
    host = match["host"].strip("[]").lower()
    _check_host(host, literal=match["host"].startswith("["))
    port = int(match["port"]) if match["port"] else PORTS[match["scheme"]]
    if not 0 < port < 65536:
        raise _wrong("port", f"there is no port {port}")
    return Receiver(match["scheme"], host, port, (match["path"] or "/") + (match["query"] or ""))


def _check_host(host: str, *, literal: bool) -> None:
    if literal:
        try:
            IPv6Address(host)
        except ValueError:
            raise _wrong("invalid_url", "its host is no IPv6 address") from None
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _wrong("invalid_url", "its host is no name")
    if _NUMERIC.fullmatch(labels[-1]):  # then resolvers read it as an address, octal and all
        try:
            IPv4Address(host)
        except ValueError:
            raise refused("its host is an IPv4 address in an odd notation") from None


def is_inside(address: Address) -> bool:
    """Whether an address is anything but a public host's."""
    if isinstance(address, IPv6Address):
        public = address in _UNICAST_V6 and not any(address in n for n in _INSIDE_V6)
        return not public or not address.is_global
    return not address.is_global or any(address in network for network in _INSIDE_V4)


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an operator has named it in RDEV_WEBHOOK_ALLOW; nothing is unless named."""
    return any(address.version == n.version and address in n for n in allowed)


def check(receiver: Receiver, addresses: Sequence[str], allowed: Sequence[Network]) -> None:
    """Raise InvalidField (webhook_address_refused) unless every address may be connected to.

    `addresses` is what the host resolves to now; with none, the name alone is judged. To allowed
    addresses any port and plain http will do; to the world it is https on a port of the list.
    """
    found = [ip_address(text.partition("%")[0]) for text in addresses]
    if not found and _INSIDE_NAMES.fullmatch(receiver.host.removesuffix(".")):
        raise refused("its host is a name of the inside")
    if found and all(is_allowed(address, allowed) for address in found):
        return
    for address in found:
        if is_inside(address) and not is_allowed(address, allowed):
            raise refused("its host is an address of the inside; RDEV_WEBHOOK_ALLOW may name it")
    if receiver.scheme != "https":
        raise refused("must be https; plain http is for receivers in RDEV_WEBHOOK_ALLOW")
    if receiver.port not in PUBLIC_PORTS:
        ports = ", ".join(map(str, sorted(PUBLIC_PORTS)))
        raise refused(f"its port must be one of {ports}; others are for RDEV_WEBHOOK_ALLOW")


def refused(why: str) -> InvalidField:
    """The refusal of an address."""
    code = "webhook_address_refused"
    return InvalidField([FieldError("url", code, f"url: {why}")], code=code)


def _wrong(code: str, why: str) -> InvalidField:
    return InvalidField.one("url", code, f"url: {why}")
