"""Connecting: to the one server that a DSN names, or to the first of several that is what the DSN asks for.

asyncpg gives all hosts of a DSN one time-out together, so that one that is silent (its machine is off, its process
stopped) kept every connection from the next. Here each host has its share of it, as with libpq, and one that was silent
is tried last for a while. And what a DSN asks of a connection must go on being so: a primary that was made read-only
when another was promoted would answer reads from a past that moves no more.
"""

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

if TYPE_CHECKING:
    Connected = asyncpg.Connection[asyncpg.Record]
else:
    Connected = Any

SILENT_S = 30.0
Host = tuple[str, int]


class Servers:
    """Connects to what a DSN names."""

    def __init__(self, dsn: str) -> None:
        self.hosts = several_hosts(dsn)
        asked = parse_qs(urlsplit(dsn).query).get("target_session_attrs", ["any"])[-1]
        self._may_be_standby = asked not in ("primary", "read-write")
        self._may_be_read_only = asked != "read-write"
        self._silent: dict[Host, float] = {}

    async def connect(self, dsn: str, *, timeout: float, **arguments: Any) -> Connected:
        """A connection within `timeout`, as asyncpg.connect makes it, which also says what is raised."""
        if len(self.hosts) < 2:
            return await asyncpg.connect(dsn, timeout=timeout, **arguments)
        failed: BaseException | None = None
        for host, port in sorted(self.hosts, key=self._is_silent):
            try:
                share = timeout / len(self.hosts)
                return await asyncpg.connect(dsn, host=host, port=port, timeout=share, **arguments)
            except TimeoutError as error:
                self._silent[host, port] = time.monotonic() + SILENT_S
                failed = error
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError) as error:
                failed = error
            except asyncpg.TargetServerAttributeNotMatched as error:
                failed = failed or error
        assert failed is not None
        raise failed

    def is_left(self, connection: "Connected | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> bool:
        """Whether a connection leads to a server that is not what the DSN asks for any more."""
        said: Any = connection.get_settings()  # servers tell of their own when one of these changes
        is_standby = getattr(said, "in_hot_standby", "off") == "on"
        is_read_only = getattr(said, "default_transaction_read_only", "off") == "on"
        return (is_standby and not self._may_be_standby) or (is_read_only and not self._may_be_read_only)

    def _is_silent(self, host: Host) -> bool:
        return time.monotonic() < self._silent.get(host, 0.0)


def several_hosts(dsn: str) -> list[Host]:
    """The hosts of a DSN that names more than one; of any other none, as asyncpg knows where to look for it."""
    place = urlsplit(dsn)
    query = parse_qs(place.query)
    if "host" in query:
        names, ports = query["host"][-1].split(","), query.get("port", [""])[-1].split(",")
    else:
        parts = [_split(part) for part in place.netloc.rpartition("@")[2].split(",")]
        names, ports = [name for name, _ in parts], [port for _, port in parts]
    if len(names) < 2:
        return []
    if len(ports) == 1:
        ports *= len(names)
    return [(name, int(port or 5432)) for name, port in zip(names, ports, strict=True)]


def _split(part: str) -> tuple[str, str]:
    """Host and port; an address of version 6 stands in brackets."""
    name, _, port = part.rpartition(":") if ":" in part.rpartition("]")[2] else (part, "", "")
    return name.strip("[]"), port
