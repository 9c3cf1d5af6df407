"""Addresses: what proxies say is believed as far as they are trusted, and not an inch further."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.core.addresses import claims, client, networks, parse, place, within

OURS = networks(["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"])
WRITTEN = {
    "192.0.2.1": "192.0.2.1",
    " 192.0.2.1 ": "192.0.2.1",
    "192.0.2.1:4711": "192.0.2.1",
    "2001:db8::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:4711": "2001:db8::1",
    "fe80::1%eth0": "fe80::1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "": None,
    "unknown": None,
    "_hidden": None,
    "192.0.2": None,
    "192.0.2.1.5": None,
    "a:b": None,
}


@pytest.mark.parametrize(("text", "meant"), WRITTEN.items())
def test_an_address_is_read_as_sockets_and_proxies_write_it(text: str, meant: str | None) -> None:
    assert parse(text) == (None if meant is None else ip_address(meant))


def test_a_network_is_written_as_one() -> None:
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.1.2.3/8"])
    assert within(ip_address("10.1.2.3"), OURS)
    assert not within(ip_address("11.1.2.3"), OURS)
    assert within(ip_address("fd12::1"), OURS)


def test_a_customer_with_version_6_is_one_place() -> None:
    assert place(ip_address("2001:db8:1:2::1")) == place(ip_address("2001:db8:1:2:ffff::2")) == "2001:db8:1:2::/64"
    assert place(ip_address("2001:db8:1:3::1")) != place(ip_address("2001:db8:1:2::1"))
    assert place(ip_address("192.0.2.1")) != place(ip_address("192.0.2.2"))


SAID = [
    ("192.0.2.9", [], "192.0.2.9"),
    ("192.0.2.9", ["198.51.100.1"], "192.0.2.9"),
    ("127.0.0.1", [], "127.0.0.1"),
    ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
    ("127.0.0.1", ["203.0.113.66", "198.51.100.1"], "198.51.100.1"),
    ("127.0.0.1", ["198.51.100.1", "10.0.0.7"], "198.51.100.1"),
    ("127.0.0.1", ["203.0.113.66", "198.51.100.1", " 10.0.0.7", "fd00::3"], "198.51.100.1"),
    ("127.0.0.1", ["10.0.0.1", "10.0.0.2"], "10.0.0.1"),
    ("127.0.0.1", ["203.0.113.66", "unknown", "10.0.0.2"], "10.0.0.2"),
    ("127.0.0.1", ["unknown"], "127.0.0.1"),
]


@pytest.mark.parametrize(("peer", "said", "found"), SAID)
def test_who_asks_is_the_nearest_that_is_no_proxy_of_ours(peer: str, said: list[str], found: str) -> None:
    assert client(ip_address(peer), said, OURS) == ip_address(found)


@given(st.lists(st.sampled_from(["10.0.0.1", "203.0.113.66", "unknown", "", "127.0.0.1"])))
def test_nothing_that_is_written_in_front_changes_who_asks(forged: list[str]) -> None:
    """Our proxy appends whom it was called by; all before it came with the request."""
    assert client(IPv4Address("127.0.0.1"), [*forged, "198.51.100.1"], OURS) == IPv4Address("198.51.100.1")


def test_forwarded_is_read_where_there_is_no_x_forwarded_for() -> None:
    said = ['for="[2001:db8::1]:47";proto=https, for=198.51.100.1; by=10.0.0.7', "proto=http;For=10.0.0.2"]

    assert claims([], said) == ["[2001:db8::1]:47", "198.51.100.1", "10.0.0.2"]
    assert claims(["203.0.113.66, 198.51.100.1", "10.0.0.2"], said) == ["203.0.113.66", " 198.51.100.1", "10.0.0.2"]
    assert claims([], ["proto=https", ""]) == [""]
    assert claims([], []) == []
