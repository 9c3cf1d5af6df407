"""What one would write first: one table with `updated_at` and an index on it, tombstones, `GET /{space}?since=…`.

As good as its users would make it: kept connections, prepared statements, upserts, a batch in one statement, pages by
key `(updated_at, id)`, rows rendered by PostgreSQL. It has the fault of its kind: `updated_at` is when a transaction
began, or when it wrote, and what wrote earlier can end later, behind the back of who read meanwhile (README.md).
"""

import argparse
import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import msgspec
import uvloop
from aiohttp import web

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = Any

SCHEMA = """
create table item (
  space text not null,
  id text collate "C" not null,
  data jsonb not null,
  deleted boolean not null default false,
  updated_at timestamptz not null default now(),
  primary key (space, id)
);
create index item_updated on item (space, updated_at, id);
"""
PAGE = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SET = """on conflict (space, id) do update
   set data = excluded.data, deleted = excluded.deleted, updated_at = excluded.updated_at"""
_WRITE = "insert into item (space, id, data, deleted, updated_at) values ($1, $2, $3::text::jsonb, $4, now()) " + _SET
_WRITE_ALL = (
    """insert into item (space, id, data, deleted, updated_at)
select $1, i, d::jsonb, x, now() from unnest($2::text[], $3::text[], $4::boolean[]) as w (i, d, x) order by i """
    + _SET
)
_SINCE = """with page as (
  select id, data, deleted, updated_at
    from item where space = $1 and (updated_at, id) > ($2, $3)
   order by updated_at, id limit $4)
select (select '[' || coalesce(string_agg('{"id":' || to_json(id)::text || ',"data":' || data::text || ',"deleted":'
       || deleted || '}', ',' order by updated_at, id), '') || ']' from page) as items,
       (select count(*) from page) as count, last.updated_at, last.id
  from (select) as one
  left join (select updated_at, id from page order by updated_at desc, id desc limit 1) as last on true"""


class Item(msgspec.Struct, frozen=True):
    """A write. Without `data` it is a delete."""

    id: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    deleted: bool = False


class Items(msgspec.Struct, frozen=True):
    """The body of a POST."""

    items: list[Item]


class Rows:
    """The table behind HTTP."""

    def __init__(self, dsn: str, size: int, *, is_by_row: bool, clock: str) -> None:
        self.dsn, self.size, self.is_by_row = dsn, size, is_by_row
        self._write, self._write_all = (query.replace("now()", clock) for query in (_WRITE, _WRITE_ALL))
        self._pool: Pool | None = None
        self._items = msgspec.json.Decoder(Items)

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """While the application runs."""
        settings = {"jit": "off", "timezone": "UTC"}
        async with asyncpg.create_pool(
            self.dsn, min_size=self.size, max_size=self.size, server_settings=settings
        ) as pool:
            self._pool = pool
            yield

    async def write(self, request: web.Request) -> web.Response:
        """Upsert some items in one transaction; ordered, so that no two requests wait for each other in a circle."""
        assert self._pool is not None
        space = request.match_info["space"]
        items = self._items.decode(await request.read()).items
        if len(items) == 1:
            item = items[0]
            await self._pool.execute(self._write, space, item.id, bytes(item.data).decode(), item.deleted)
        elif self.is_by_row:
            items = sorted(items, key=lambda item: item.id)
            rows = [(space, item.id, bytes(item.data).decode(), item.deleted) for item in items]
            await self._pool.executemany(self._write, rows)
        else:
            texts = [bytes(item.data).decode() for item in items]
            await self._pool.execute(
                self._write_all, space, [item.id for item in items], texts, [item.deleted for item in items]
            )
        return web.Response(body=b'{"written":%d}' % len(items), content_type="application/json")

    async def since(self, request: web.Request) -> web.Response:
        """What was updated after a cursor, `MICROSECONDS.ID`; from the start without."""
        assert self._pool is not None
        micros, _, last = request.query.get("since", "").partition(".")
        after = _EPOCH + timedelta(microseconds=int(micros or 0))
        row = await self._pool.fetchrow(_SINCE, request.match_info["space"], after, last, PAGE)
        assert row is not None
        cursor = "null"
        if row["count"]:
            cursor = f'"{(row["updated_at"] - _EPOCH) // timedelta(microseconds=1)}.{row["id"]}"'
        more = "true" if row["count"] == PAGE else "false"
        text = f'{{"items":{row["items"]},"cursor":{cursor},"more":{more}}}'
        return web.Response(body=text.encode(), content_type="application/json")


async def serve(listener: socket.socket, rows: Rows) -> None:
    """Until told to stop."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/{space}", rows.since)
    app.router.add_post("/{space}", rows.write)
    app.cleanup_ctx.append(rows.run)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        await told.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Print the port and serve; further processes accept from the same socket."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--pool", type=int, default=10)
    parser.add_argument("--by-row", action="store_true", help="a batch is a statement a row, not one by unnest")
    parser.add_argument(
        "--clock", action="store_true", help="updated_at is when a row is written, not when its transaction began"
    )
    arguments = parser.parse_args()
    clock = "clock_timestamp()" if arguments.clock else "now()"
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    children = 0
    while children < arguments.processes - 1 and os.fork():
        children += 1
    uvloop.run(serve(listener, Rows(arguments.dsn, arguments.pool, is_by_row=arguments.by_row, clock=clock)))


if __name__ == "__main__":
    main()
