"""Which address a request came from, as far as that can be known.

Only X-Forwarded-For counts; the client is the rightmost address outside the trusted proxies. When
every hop is trusted the leftmost counts only where the edge is declared to overwrite what clients
send. Everything odd is `None`, unknown: address-restricted keys are refused then, others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from common.settings import Network

Address = IPv4Address | IPv6Address


def parse(text: str) -> Address | None:
    """One address, IPv4-mapped ones unmapped; None for garbage, ports and zone ids."""
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _trusted(address: Address, proxies: Sequence[Network]) -> bool:
    return any(address in network for network in proxies)


def client(
    peer: str | None, forwarded: Sequence[str], proxies: Sequence[Network], *, edge_overwrites: bool
) -> str | None:
    """The client's address from the peer and all X-Forwarded-For lines, or None when unknown."""
    texts = [part for line in forwarded for part in line.split(",")]
    hop = None
    for text in (peer or "", *reversed(texts)):
        hop = parse(text)
        if hop is None:
            return None
        if not _trusted(hop, proxies):
            return str(hop)
    return str(hop) if edge_overwrites and texts else None
