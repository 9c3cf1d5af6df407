"""Origins and hosts: what a browser says of where a page is from (RFC 6454), and of which name it has looked up."""

import re

from journal.core.addresses import parse

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:/@\s\[\]]+)")
_PORT = re.compile(r":[0-9]{0,5}")
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


def is_origin(text: str) -> bool:
    """Whether it is an origin as browsers write one: scheme://host[:port], in lower case, without a path."""
    match = _ORIGIN.fullmatch(text)
    return match is not None and match[3] != _DEFAULT_PORT.get(match[1], "")


def is_of_host(origin: str, host: str) -> bool:
    """Whether a page of that origin is from the host that the request was sent to; the scheme is for who ends TLS."""
    scheme, _, authority = origin.partition("://")
    if not authority:
        return False
    default = _DEFAULT_PORT.get(scheme, "")
    return authority.lower() in (host.lower(), host.lower().removesuffix(default) if default else "")


def name(host: str) -> str:
    """The name in a Host header, without its port and the brackets; "" where it is not written as one."""
    match = _HOST.match(host)
    if match is None or not (host[match.end() :] == "" or _PORT.fullmatch(host, match.end())):
        return ""
    return match[0].strip("[]").lower().rstrip(".")


def is_literal(host_name: str) -> bool:
    """Whether it is an address: nobody's name server can make that be another."""
    return parse(host_name) is not None


def is_loopback_name(host_name: str) -> bool:
    """Whether no name server is asked for it (RFC 6761, section 6.3)."""
    return host_name == "localhost" or host_name.endswith(".localhost")
