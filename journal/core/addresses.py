"""Addresses: who is at the other end, also behind proxies, and what counts as one place.

The rule: what a header says of an address is believed only as far as it was written by a proxy that is trusted.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]

HOME_BITS = 64  # of an address of version 6: what is behind them is one customer's
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;,\s"]*))', re.I)


def networks(texts: Iterable[str]) -> Networks:
    """The networks; ValueError where one is none."""
    return tuple(ip_network(text) for text in texts)


def within(address: Address, of: Networks) -> bool:
    """Whether the address is in one of the networks."""
    return any(address.version == network.version and address in network for network in of)


def place(address: Address) -> str:
    """What is limited as one."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, HOME_BITS), strict=False))


def parse(text: str) -> Address | None:
    """An address, with or without a port, as sockets and proxies write it; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def claims(forwarded_for: Sequence[str], forwarded: Sequence[str]) -> list[str]:
    """Whom proxies say to speak for, the nearest last: by X-Forwarded-For, or where there is none by Forwarded."""
    if forwarded_for:
        return ",".join(forwarded_for).split(",")
    found = (_FOR.search(part) for part in ",".join(forwarded).split(",") if part.strip())
    return ["" if match is None else match[1] or match[2] or "" for match in found]


def client(peer: Address, said: Sequence[str], trusted: Networks) -> Address:
    """Who asks: the nearest that is no proxy of ours. What is beyond it, anybody may have written."""
    found = peer
    for claim in reversed(said):
        if not within(found, trusted):
            break
        address = parse(claim)
        if address is None:
            break
        found = address
    return found
