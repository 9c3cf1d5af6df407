"""The record itself, unconsolidated, in whole commits (protocol, section 3.6)."""

from pathlib import Path

from msgspec import UNSET

from journal.core import chain
from journal.core.cursor import Cursor
from journal.service.answer import Answer, Form, of_spool
from journal.service.judge import judged
from journal.service.spool import Spool
from journal.service.tails import Tails
from journal.store import heads, reading
from journal.store.database import Database
from journal.wire import Members


class Changes:
    """Answers requests for the record."""

    def __init__(self, database: Database, tails: Tails, folder: Path, memory_bytes: int) -> None:
        self.database, self.tails = database, tails
        self.folder, self.memory_bytes = folder, memory_bytes

    async def changes(self, journal: str, since: Cursor | int, limit: int, form: Form) -> Answer:
        """At most `limit` changes after `since`, at least one commit where there is one."""
        tail = await self.tails.of(journal)
        position = since if isinstance(since, int) else since.revision
        spool = Spool(self.folder, self.memory_bytes)
        try:
            async with self.database.moment() as connection:
                head = await heads.head_by_id(connection, tail.head.id)
                if head is None:
                    raise self.tails.gone(tail)
                await judged(connection, head, since)
                end = await reading.commits_end(connection, head, position, limit)
                at_end = await heads.chain_at(connection, head, end)
                assert at_end is not None
                await reading.copy_commits(connection, head, position, end, spool.write)
        except BaseException:
            spool.close()
            raise
        members = Members(
            epoch=head.epoch,
            since=position,
            until=end,
            more=end < head.head,
            cursor=str(Cursor(head.epoch, end, chain.told(at_end))),
            head=UNSET,
        )
        key = f"changes {head.epoch} {head.head} {head.chain.hex()} {since} {limit} {form}"
        return of_spool(members, spool, form, key=key, name="commits")
