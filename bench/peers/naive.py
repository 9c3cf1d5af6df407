"""A table with `updated_at`, as a peer: naive_service.py, in three ways to run it."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Fetched, Served, get, post
from bench.peers.driver import Data, Sender, Told, process
from bench.peers.naive_service import SCHEMA
from bench.place import connected

_CONFIGURATIONS = {
    "1 process, by row": ("--pool", "10", "--by-row"),
    "1 process, unnest": ("--pool", "20"),
    "2 processes, unnest, clock": ("--pool", "10", "--processes", "2", "--clock"),
}


class Naive:
    """A space is a value of a column; a write is an upsert."""

    name = "naive"
    configurations: Sequence[str] = tuple(_CONFIGURATIONS)
    batch = 1000

    async def prepare(self, dsn: str, folder: Path) -> None:
        async with connected(dsn) as connection:
            await connection.execute(SCHEMA)

    def serving(self, configuration: str, dsn: str, folder: Path) -> AbstractContextManager[Served]:
        command = [sys.executable, "-m", "bench.peers.naive_service", "--dsn", dsn, *_CONFIGURATIONS[configuration]]
        return process(command)

    def create(self, space: str) -> Sequence[bytes]:
        return []

    def write(self, space: str, writes: Sequence[tuple[str, Data]], sender: Sender | None = None) -> bytes:
        return post(f"/{space}", msgspec.json.encode({"items": [{"id": atom, "data": data} for atom, data in writes]}))

    def taken(self, body: bytes) -> Sequence[bool]:
        return [True] * msgspec.json.decode(body)["written"] if body.startswith(b"{") else []

    def since(self, space: str, cursor: str) -> bytes:
        return get(f"/{space}?since={cursor}")

    def told(self, space: str, fetched: Fetched, cursor: str) -> Told:
        answer = msgspec.json.decode(fetched.body, type=_Since)
        changes = [(item.id, None if item.deleted else item.data) for item in answer.items]
        return Told(changes, answer.cursor or cursor, answer.more)

    def fill(self, space: str) -> str:
        return ""

    def holding(self) -> str:
        return """create trigger peers_wait after insert or update on item for each row
                    when (new.id like 'slow-%') execute function peers_wait()"""

    def recording(self) -> Sequence[str]:
        return [
            "create table peers_applied (n bigint generated always as identity, space text, atom text, key text)",
            """create function peers_record() returns trigger language plpgsql as $$ begin
                 insert into peers_applied (space, atom, key) values (new.space, new.id, new.data->>'key'); return new;
               end $$""",
            "create trigger peers_record after insert or update on item for each row execute function peers_record()",
        ]

    def applied(self, space: str) -> str:
        return f"select atom, key from peers_applied where space = '{space}' order by n"


class _Item(msgspec.Struct, frozen=True):
    id: str
    data: dict[str, Any]
    deleted: bool


class _Since(msgspec.Struct, frozen=True):
    items: list[_Item]
    cursor: str | None
    more: bool
