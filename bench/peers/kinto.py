"""Kinto with PostgreSQL behind it, as a peer: from an environment of its own (`.peers`), in three ways to run it.

Set as cheaply as it goes: nobody has to sign in, permissions are said by settings, its cache is its own memory, it logs
only errors. All three keep storage and permissions in the same database, as several processes must.
"""

import asyncio
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Fetched, Served, get, post
from bench.peers.driver import Data, Sender, Told, free_port, process, put
from bench.place import ROOT, connected

PROGRAMS = ROOT / ".peers" / "bin"
BUCKET = "/v1/buckets/peers"
_CONFIGURATIONS = {
    "waitress 1×16": (1, {"explicit_permissions": "true"}),
    "gunicorn 2×8": (2, {"explicit_permissions": "true"}),
    "gunicorn 2×8, no grants": (2, {"explicit_permissions": "false"}),
}
_SETTINGS = """[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
threads = 16

[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.postgresql
kinto.storage_url = {url}
kinto.storage_pool_size = 16
kinto.permission_backend = kinto.core.permission.postgresql
kinto.permission_url = {url}
kinto.permission_pool_size = 16
kinto.cache_backend = kinto.core.cache.memory
kinto.userid_hmac_secret = of-no-use
multiauth.policies = basicauth
kinto.bucket_create_principals = system.Everyone
kinto.bucket_write_principals = system.Everyone
kinto.collection_create_principals = system.Everyone
kinto.record_create_principals = system.Everyone
kinto.record_write_principals = system.Everyone
kinto.record_read_principals = system.Everyone
{more}

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = CRITICAL
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
"""


class Kinto:
    """A space is a collection; a write is a PUT of a record, several are a /batch of them."""

    name = "Kinto"
    configurations: Sequence[str] = tuple(_CONFIGURATIONS)
    batch = 25  # what it takes unless told otherwise; larger ones only wait longer for each other

    async def prepare(self, dsn: str, folder: Path) -> None:
        async with connected(dsn) as connection:
            await connection.execute(_IN_UTC)
        command = [str(PROGRAMS / "kinto"), "migrate", "--ini", str(_settings(dsn, 0, {}, folder))]
        migrating = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        _, said = await migrating.communicate()
        assert migrating.returncode == 0, said.decode()

    @contextmanager
    def serving(self, configuration: str, dsn: str, folder: Path) -> Iterator[Served]:
        processes, more = _CONFIGURATIONS[configuration]
        port = free_port()
        settings = str(_settings(dsn, port, more, folder))
        command = [str(PROGRAMS / "kinto"), "start", "--ini", settings, "--port", str(port)]
        if processes > 1:
            command = [str(PROGRAMS / "gunicorn"), "--paste", settings, "--bind", f"127.0.0.1:{port}"]
            command += ["--worker-class", "gthread", "--workers", str(processes), "--threads", "8"]
            command += ["--keep-alive", "60", "--no-control-socket", "--log-level", "critical"]
        with process(command, port, log=folder / "kinto.log") as served:
            yield served

    def create(self, space: str) -> Sequence[bytes]:
        return [put(BUCKET), put(f"{BUCKET}/collections/{space}")]

    def write(self, space: str, writes: Sequence[tuple[str, Data]], sender: Sender | None = None) -> bytes:
        paths = [f"{BUCKET}/collections/{space}/records/{atom}" for atom, _ in writes]
        if len(writes) == 1:
            return put(paths[0], msgspec.json.encode({"data": writes[0][1]}))
        requests = [{"path": path, "body": {"data": data}} for path, (_, data) in zip(paths, writes, strict=True)]
        return post("/v1/batch", msgspec.json.encode({"defaults": {"method": "PUT"}, "requests": requests}))

    def taken(self, body: bytes) -> Sequence[bool]:
        try:
            answer = msgspec.json.decode(body, type=_Written)
        except msgspec.DecodeError:
            return []
        if answer.responses is not None:
            return [response.status in (200, 201) for response in answer.responses]
        return [] if answer.code else [True]

    def since(self, space: str, cursor: str) -> bytes:
        _, _, next_page = cursor.partition(" ")
        since = f"?_since={cursor}" if cursor else ""
        return get(next_page or f"{BUCKET}/collections/{space}/records{since}")

    def told(self, space: str, fetched: Fetched, cursor: str) -> Told:
        # As its own client does: the ETag of the round's first page, which was told before its rows were read.
        tag = cursor.partition(" ")[0] if " " in cursor else _header(fetched, "ETag").strip('"')
        records = msgspec.json.decode(fetched.body)["data"]
        changes = [(record["id"], None if record.get("deleted") else _data(record)) for record in records]
        next_page = _header(fetched, "Next-Page")
        if next_page:
            tag += " /v1/" + next_page.partition("/v1/")[2]
        return Told(changes, tag, bool(next_page))

    def fill(self, space: str) -> str:
        return f"""insert into objects (id, parent_id, resource_name, data, last_modified, deleted)
                   select to_char(n, 'FM0000000000000000'), '/buckets/peers/collections/{space}', 'record',
                          $2::text::jsonb, date_trunc('second', now()::timestamp) + (n - 60000) * interval '1 ms', false
                     from generate_series(1, $1::bigint) as n"""

    def holding(self) -> str:
        return """create trigger peers_wait after insert or update on objects for each row
                    when (new.id like 'slow-%') execute function peers_wait()"""

    def recording(self) -> Sequence[str]:
        return [
            "create table peers_applied (n bigint generated always as identity, parent text, atom text, key text)",
            """create function peers_record() returns trigger language plpgsql as $$ begin
                 insert into peers_applied (parent, atom, key) values (new.parent_id, new.id, new.data->>'key');
                 return new;
               end $$""",
            """create trigger peers_record after insert or update on objects for each row
                 when (new.resource_name = 'record') execute function peers_record()""",
        ]

    def applied(self, space: str) -> str:
        return f"select atom, key from peers_applied where parent = '/buckets/peers/collections/{space}' order by n"


def versions() -> dict[str, str]:
    """What is installed in its environment, of what matters; RuntimeError if there is none."""
    if not (PROGRAMS / "kinto").exists():
        raise RuntimeError("Kinto is not there: `make bench-peers` and `make prove` install it into .peers")
    names = ("kinto", "SQLAlchemy", "psycopg2-binary", "gunicorn", "waitress")
    tell = f"from importlib.metadata import version; print(*(version(name) for name in {names}))"
    said = subprocess.run([PROGRAMS / "python", "-c", tell], check=True, capture_output=True, text=True).stdout
    return dict(zip(names, said.split(), strict=True))


class _Response(msgspec.Struct, frozen=True):
    status: int


class _Written(msgspec.Struct, frozen=True):
    responses: list[_Response] | None = None
    code: int = 0


_IN_UTC = "do $$ begin execute format('alter database %I set timezone to utc', current_database()); end $$"


def _header(fetched: Fetched, name: str) -> str:
    """A header's value, "" if it is not there; servers differ in how they write names."""
    found = re.search(rb"\r\n%b: ([^\r]*)" % name.encode(), fetched.head, re.I)
    return found[1].decode() if found else ""


def _data(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("id", "last_modified", "schema")}


def _settings(dsn: str, port: int, more: Mapping[str, str], folder: Path) -> Path:
    """A settings file; a percent sign in it is doubled."""
    lines = "\n".join(f"kinto.{name} = {value}" for name, value in more.items())
    path = folder / "kinto.ini"
    path.write_text(_SETTINGS.format(port=port, url=dsn.replace("%", "%%"), more=lines))
    return path
