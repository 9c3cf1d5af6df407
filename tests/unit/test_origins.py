"""Origins and hosts, as browsers write them, and as those do who would like to be taken for another."""

import pytest

from journal.core.origins import is_literal, is_loopback_name, is_of_host, is_origin, name

ORIGINS = {
    "https://app.example": True,
    "http://app.example:8080": True,
    "http://[2001:db8::1]:8080": True,
    "http://localhost:3000": True,
    "capacitor://localhost": True,
    "https://app.example:443": False,
    "http://app.example:80": False,
    "https://App.example": False,
    "https://app.example/": False,
    "https://app.example/path": False,
    "https://*.example": False,
    "app.example": False,
    "null": False,
    "*": False,
    "": False,
    "https://app.example\r\nX: y": False,
}


@pytest.mark.parametrize(("text", "is_one"), ORIGINS.items())
def test_an_origin_is_written_as_browsers_send_it(text: str, is_one: bool) -> None:
    assert is_origin(text) is is_one


OF_HOST = [
    ("http://127.0.0.1:8470", "127.0.0.1:8470", True),
    ("https://journal.example", "journal.example", True),
    ("https://journal.example", "journal.example:443", True),
    ("https://Journal.example", "journal.EXAMPLE", True),
    ("http://[::1]:8470", "[::1]:8470", True),
    ("http://127.0.0.1:3000", "127.0.0.1:8470", False),
    ("https://evil.example", "journal.example", False),
    ("https://journal.example.evil.example", "journal.example", False),
    ("https://journal.example", "journal.example:80", False),
    ("odd://journal.example", "journal.example:80", False),
    ("null", "journal.example", False),
    ("null", "", False),
    ("", "", False),
    ("http://", "", False),
]


@pytest.mark.parametrize(("origin", "host", "is_own"), OF_HOST)
def test_a_page_is_the_services_own_where_host_and_port_are(origin: str, host: str, is_own: bool) -> None:
    assert is_of_host(origin, host) is is_own


NAMES = {
    "localhost:8470": "localhost",
    "LocalHost.": "localhost",
    "127.0.0.1:8470": "127.0.0.1",
    "[::1]:8470": "::1",
    "[::1]": "::1",
    "evil.example": "evil.example",
    "localhost:": "localhost",
    "localhost:8470@evil.example": "",
    "evil.example/localhost": "",
    "[::1]evil.example": "",
    "localhost:port": "",
    "": "",
}


@pytest.mark.parametrize(("host", "meant"), NAMES.items())
def test_the_name_in_a_host_header(host: str, meant: str) -> None:
    assert name(host) == meant


def test_names_that_no_name_server_decides() -> None:
    assert is_literal("127.0.0.1")
    assert is_literal("::1")
    assert not is_literal("127.0.0.1.evil.example")
    assert is_loopback_name("localhost")
    assert is_loopback_name("app.localhost")
    assert not is_loopback_name("localhost.evil.example")
    assert not is_loopback_name("evillocalhost")
