"""This service, as a peer: bench/serve.py starts it as `journal serve` does."""

import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Fetched, Served, get, post
from bench.peers.driver import Data, Sender, Told, process, put
from journal.store.migrate import migrate

COLLECTION = "todo"
_STATUS = re.compile(rb'\{"status":"(\w+)"')


class Journal:
    """A space is a journal; a write is a `put` that the policy `client` lets through without a base.

    So every delta has the whole data, and a reader need not merge.
    """

    name = "journal"
    configurations: Sequence[str] = ("one process",)
    batch = 1000

    async def prepare(self, dsn: str, folder: Path) -> None:
        await migrate(dsn)

    def serving(self, configuration: str, dsn: str, folder: Path) -> AbstractContextManager[Served]:
        assert configuration in self.configurations
        command = [sys.executable, "-m", "bench.serve", "journal", "--dsn", dsn, "--folder", str(folder)]
        return process(command)

    def create(self, space: str) -> Sequence[bytes]:
        return [put(f"/v1/journals/{space}")]

    def write(self, space: str, writes: Sequence[tuple[str, Data]], sender: Sender | None = None) -> bytes:
        changes = [{"op": "put", "collection": COLLECTION, "atom": atom, "data": data} for atom, data in writes]
        pushed: dict[str, Any] = {"on_conflict": "client", "changes": changes}
        if sender is not None:
            pushed |= {"client": sender.client, "push": sender.push}
        return post(f"/v1/journals/{space}/changes", msgspec.json.encode(pushed))

    def taken(self, body: bytes) -> Sequence[bool]:
        return [status == b"applied" for status in _STATUS.findall(body)]

    def since(self, space: str, cursor: str) -> bytes:
        return get(f"/v1/journals/{space}/deltas?since={cursor or 0}")

    def told(self, space: str, fetched: Fetched, cursor: str) -> Told:
        answer = msgspec.json.decode(fetched.body, type=_Deltas)
        return Told([(delta.atom, delta.data) for delta in answer.deltas], answer.cursor, answer.more)

    def fill(self, space: str) -> str:
        return ""

    def holding(self) -> str:
        return """create trigger peers_wait after insert on journal.change for each row
                    when (new.atom like 'slow-%') execute function peers_wait()"""

    def recording(self) -> Sequence[str]:
        return []

    def applied(self, space: str) -> str:
        return f"""select c.atom, c.data->>'key' as key
                     from journal.change c join journal.journal j on j.id = c.journal_id and j.name = '{space}'
                    order by c.revision"""


class _Delta(msgspec.Struct, frozen=True):
    atom: str
    data: dict[str, Any] | None = None


class _Deltas(msgspec.Struct, frozen=True):
    deltas: list[_Delta]
    cursor: str
    more: bool
