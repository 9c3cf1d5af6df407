"""Every setting, with what it is when nothing is said. A flag and a JOURNAL_* variable have the same name."""

from pathlib import Path

import msgspec

MIB = 1 << 20


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


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The service's settings. `spool` is a folder for snapshots and for what does not fit in memory."""

    dsn: str
    spool: Path
    host: str = "127.0.0.1"
    port: int = 8470
    read_connections: int = 8
    poll_s: float = 2.0
    registry_s: float = 3.0
    push_kept_days: float = 30.0
    key_kept_days: float = 1.0
    limits: Limits = Limits()
    memory: Memory = Memory()
    snapshots: Snapshots = Snapshots()
