"""Every setting, with what it is when nothing is said. A flag and a JOURNAL_* variable have the same name."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

MIB = 1 << 20
SHORTEST_SECRET = 32  # bytes: as many as HS256 has (RFC 7518, section 3.2)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may ask for; `GET /v1` tells them."""

    body_bytes: int = 16 * MIB
    changes: int = 10_000
    nesting: int = 64
    atom_bytes: int = 1 * MIB
    collection_name_bytes: int = 128
    atom_name_bytes: int = 255
    deltas: int = 100_000
    raw_changes: int = 10_000
    lookup_atoms: int = 10_000
    wait_s: int = 60


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What a process keeps of journals so as not to ask for it again."""

    ring_changes: int = 4096
    ring_bytes: int = 4 * MIB
    journals: int = 20_000
    all_rings_bytes: int = 128 * MIB
    answers_bytes: int = 64 * MIB
    answer_bytes: int = 1 * MIB


class Snapshots(msgspec.Struct, frozen=True, kw_only=True):
    """How snapshots are made and kept."""

    behind_revisions: int = 10_000
    behind_s: float = 60.0
    kept_s: float = 3600.0
    made_at_once: int = 2
    waiting_at_once: int = 2000
    read_at_once: int = 256


class Walls(msgspec.Struct, frozen=True, kw_only=True):
    """What one token or address may take of a process, and how long it may take to say something; 0: without end.

    `unlimited`: networks whose addresses are not limited (tokens are, wherever from). `trusted_proxies`: networks of
    those who say for whom they ask. `cors_origins`: of whose pages scripts may use the service; `*`: of all, once there
    are tokens. `allowed_hosts`: names that it is known by besides addresses and localhost, while it needs no token.
    """

    requests_per_s: float = 1000.0
    requests_at_once: int = 2000
    streams: int = 256
    downloads: int = 32
    connections: int = 1024
    unlimited: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    head_s: float = 20.0
    idle_s: float = 75.0
    body_s: float = 20.0
    body_bytes_per_s: int = 1024
    bodies_bytes: int = 256 * MIB
    stalled_s: float = 60.0


class Jwt(msgspec.Struct, frozen=True, kw_only=True):
    """Whose JWTs are believed: of who has `secret` (HS256), and of the keys that are listed at `jwks`, a path or a URL.

    A token is for `audience` if that is set, else for none in particular; without `issuer` any will do. ValueError
    where it cannot be meant so.
    """

    secret: str | None = None
    jwks: str | None = None
    audience: str | None = None
    issuer: str | None = None
    claim: str = "journal"
    leeway_s: float = 10.0
    refresh_s: float = 300.0
    unknown_s: float = 10.0
    kept_s: float = 86_400.0
    answer_s: float = 5.0

    def __post_init__(self) -> None:
        if self.secret is None and self.jwks is None:
            raise ValueError("JWTs need a secret, or a place where keys are listed")
        if self.secret is not None and len(self.secret.encode()) < SHORTEST_SECRET:
            raise ValueError(
                f"the secret for JWTs has {len(self.secret.encode())} bytes: {SHORTEST_SECRET} are the least"
            )
        if self.jwks == "":
            raise ValueError("keys are listed at a path or a URL, not at nothing")
        if self.jwks is not None and "://" in self.jwks:
            parts = urlsplit(self.jwks)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"keys are listed at a path, or at a URL of http or https, not at {self.jwks}")

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Without the secret: settings are shown where something fails."""
        members = msgspec.structs.asdict(self)
        return [*(members | {"secret": None if self.secret is None else "…"}).items()]

    def __repr__(self) -> str:
        return f"Jwt({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class Logs(msgspec.Struct, frozen=True, kw_only=True):
    """What is said on stderr. `access`: a line for each request."""

    form: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "warning"
    access: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The service's settings. `spool` is a folder for snapshots and for what does not fit in memory.

    `listen_dsn`: PostgreSQL itself, where `dsn` leads to a pooler in transaction mode; None where it does not.
    """

    dsn: str
    listen_dsn: str | None = None
    spool: Path
    host: str = "127.0.0.1"
    port: int = 8470
    read_connections: int = 8
    poll_s: float = 2.0
    registry_s: float = 3.0
    drain_s: float = 0.0
    push_kept_days: float = 30.0
    key_kept_days: float = 1.0
    limits: Limits = Limits()
    memory: Memory = Memory()
    snapshots: Snapshots = Snapshots()
    walls: Walls = Walls()
    jwt: Jwt | None = None
    logs: Logs = Logs()
    trace_to: str | None = None
